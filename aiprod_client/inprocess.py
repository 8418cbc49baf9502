"""prompt and settings -> request -> plan -> a finished video, in this process"""

import re
import time
from collections.abc import Callable
from typing import Any

from aiprod_client.client import GeneratedVideo, StageTime
from aiprod_client.settings import VideoSettings
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.families.aiprod import RANDOM
from aiprod_components.families.base import Family
from aiprod_components.local import LocalStages, best_device, run_plan
from aiprod_components.media.pictures import check_picture
from aiprod_components.pipelines import choose_pipeline, parse_request
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import Plan, Step
from aiprod_components.stages.base import Progress

DEFAULT_FAMILY = "miniature"
# A plan reads no weights, so a family that ships none can be planned without naming any.
NO_WEIGHTS = RANDOM
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# A request's field -> the setting that says it, where they differ.
SETTINGS = {"frame_rate": "fps", "image.strength": "image_strength"}


def family_of(settings: VideoSettings, *, weights: str | None) -> Family:
    return make_family(_model(settings).partition("/")[0], weights=weights)


def request_of(prompt: str, settings: VideoSettings, *, family: Family) -> VideoRequest:
    """Raises InvalidRequestError naming the field at fault, its value and the way out."""
    width, height = _sides(settings.size)
    _, pipeline = choose_pipeline(_model(settings), named=settings.pipeline)
    fields = {
        "pipeline": pipeline,
        "num_frames": settings.num_frames,
        "width": width,
        "height": height,
        "frame_rate": settings.fps,
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "negative_prompt": settings.negative_prompt,
        "seed": settings.seed,
        "image": _first_frame(settings),
    }
    named = {name: value for name, value in fields.items() if value is not None}
    try:
        return parse_request({"prompt": prompt, **named}, family=family)
    except InvalidRequestError as error:
        if error.field not in SETTINGS:
            raise
        setting = SETTINGS[error.field]
        raise InvalidRequestError(setting + error.message.removeprefix(error.field), field=setting) from error


def generate(request: VideoRequest, *, plan: Plan, stages: LocalStages, watch: Callable[[Step], Progress]) -> GeneratedVideo:
    starts: list[float] = []

    def timed(step: Step) -> Progress:
        starts.append(time.perf_counter())
        return watch(step)

    video = run_plan(plan, stages=stages, watch=timed)
    ends = [*starts[1:], time.perf_counter()]
    timings = tuple(StageTime(step.name, step.call.stage, end - start) for step, start, end in zip(plan.steps, starts, ends, strict=True))
    seconds = ends[-1] - starts[0]
    return GeneratedVideo(video.data, request.seed, request.pipeline, video.frames_digest, seconds, timings)


def load_stages(family: Family, *, plan: Plan) -> LocalStages:
    """The stages of a plan with their weights, so that no step's time has loading in it."""
    stages = LocalStages(family, device=best_device())
    for step in plan.steps:
        stages[step.call.stage]
    return stages


def _model(settings: VideoSettings) -> str:
    return DEFAULT_FAMILY if settings.model is None else settings.model


def _sides(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    if match := _SIZE.fullmatch(size):
        return int(match[1]), int(match[2])
    raise InvalidRequestError(f"size must be WIDTHxHEIGHT, for example 128x128, got {size!r}", field="size")


def _first_frame(settings: VideoSettings) -> dict[str, Any] | None:
    if settings.image is None:
        if settings.image_strength is not None:
            raise InvalidRequestError("image_strength needs an image", field="image_strength")
        return None
    strength = {} if settings.image_strength is None else {"strength": settings.image_strength}
    return {"picture": check_picture(settings.image, field="image"), **strength}
