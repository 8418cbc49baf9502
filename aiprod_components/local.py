"""plan -> its answer, in this process"""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from aiprod_components.families.base import Family
from aiprod_components.plan import Plan, Step, fill
from aiprod_components.stages import make_stage
from aiprod_components.stages.base import Progress, Stage


class Silent:
    """Progress that nobody watches."""

    def advance(self, done: int, total: int) -> None:
        pass


class StageTable(Protocol):
    def __getitem__(self, name: str) -> Stage[Any, Any]: ...


class LocalStages:
    """A family's stages in this process, each loaded when it is first asked for and kept."""

    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._family, self._device = family, device
        self._loaded: dict[str, Stage[Any, Any]] = {}

    def __getitem__(self, name: str) -> Stage[Any, Any]:
        if name not in self._loaded:
            self._loaded[name] = make_stage(name, self._family, device=self._device)
        return self._loaded[name]


def run_plan(plan: Plan, *, stages: StageTable, watch: Callable[[Step], Progress] = lambda step: Silent()) -> Any:
    """Runs the steps in order and returns the last one's result; `watch` gives each step someone to report to."""
    results: dict[str, Any] = {}
    for step in plan.steps:
        results[step.name] = stages[step.call.stage].run(fill(step.call, results), watch(step))
    return results[plan.output]


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
