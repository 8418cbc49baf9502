"""prompt and settings -> request -> plan -> a finished video, in this process

The body that a server would get is read by what a server reads it with: the same settings are the same request, and what is wrong
with them is said in the same words.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from aiprod_client.settings import VideoSettings
from aiprod_client.video import GeneratedVideo, StageTime
from aiprod_components.families import make_family
from aiprod_components.families.aiprod import RANDOM
from aiprod_components.families.base import Family
from aiprod_components.local import LocalStages, best_device, run_plan
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import Plan, Step
from aiprod_components.stages.base import Progress
from deployments.api.body import parse_json
from deployments.api.catalogue import list_models
from deployments.api.wire import Asked, Wire

DEFAULT_FAMILY = "miniature"
# A plan reads no weights, so a family that ships none can be planned without naming any.
NO_WEIGHTS = RANDOM


def family_of(settings: VideoSettings, *, weights: str | None) -> Family:
    model = DEFAULT_FAMILY if settings.model is None else settings.model
    return make_family(model.partition("/")[0], weights=weights)


def models() -> list[dict[str, Any]]:
    """The families that run here without naming anything, as a server describes those that it serves."""
    family = make_family(DEFAULT_FAMILY)
    return list_models(Wire({family.name: family}))["data"]


def understand(prompt: str, settings: VideoSettings, *, family: Family) -> Asked:
    """The request and its plan. Raises InvalidRequestError naming the field at fault, its value and the way out."""
    return Wire({family.name: family}).read(parse_json(json.dumps(settings.body(prompt)).encode()))


def generate(request: VideoRequest, *, plan: Plan, stages: LocalStages, watch: Callable[[Step], Progress]) -> GeneratedVideo:
    starts: list[float] = []

    def timed(step: Step) -> Progress:
        starts.append(time.perf_counter())
        return watch(step)

    video = run_plan(plan, stages=stages, watch=timed)
    ends = [*starts[1:], time.perf_counter()]
    timings = tuple(StageTime(step.name, step.call.stage, end - start) for step, start, end in zip(plan.steps, starts, ends, strict=True))
    seconds = ends[-1] - starts[0]
    return GeneratedVideo(video.data, request.seed, request.pipeline, video.frames_digest, seconds, timings, video.media_type)


def load_stages(family: Family, *, plan: Plan) -> LocalStages:
    """The stages of a plan with their weights, so that no step's time has loading in it."""
    stages = LocalStages(family, device=best_device())
    for step in plan.steps:
        stages[step.call.stage]
    return stages
