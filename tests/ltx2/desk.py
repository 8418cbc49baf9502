"""a tiny checkpoint -> its family, its stages, and what they make of a request"""

from typing import Any, cast

import torch

from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import LocalStages, Silent
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import Plan, fill
from aiprod_components.values import Latents


class Desk:
    def __init__(self, family: LTX2Family) -> None:
        self.family = family
        self.stages = LocalStages(family, device=torch.device("cpu"))

    def ask(self, **fields: Any) -> VideoRequest:
        return parse_request(fields, family=self.family)

    def run(self, plan: Plan) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for step in plan.steps:
            results[step.name] = self.stages[step.call.stage].run(fill(step.call, results), Silent())
        return results


def calls_of(plan: Plan) -> dict[str, Any]:
    return {step.name: step.call for step in plan.steps}


def sound_of(latents: object) -> torch.Tensor:
    audio = cast(Latents, latents).audio
    assert audio is not None
    return audio


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for what is lost when numbers are normalized and back."""
    return torch.allclose(one, other, atol=1e-5)
