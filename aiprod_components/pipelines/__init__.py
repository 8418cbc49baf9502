"""what the user sent -> the request of the pipeline that it names"""

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from aiprod_components.errors import InvalidRequestError, UnknownModelError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.audio_to_video import AudioToVideo
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.distilled import Distilled
from aiprod_components.pipelines.fields import AudioGuidance
from aiprod_components.pipelines.ic_lora import ICLora
from aiprod_components.pipelines.keyframe_interpolation import KeyframeInterpolation
from aiprod_components.pipelines.retake import Retake
from aiprod_components.pipelines.text_to_audio import TextToAudio
from aiprod_components.pipelines.ti2vid_one_stage import TI2VidOneStage
from aiprod_components.pipelines.ti2vid_two_stages import TI2VidTwoStages

PIPELINES: dict[str, type[VideoRequest]] = {
    "ti2vid_two_stages": TI2VidTwoStages,
    "ti2vid_one_stage": TI2VidOneStage,
    "distilled": Distilled,
    "ic_lora": ICLora,
    "keyframe_interpolation": KeyframeInterpolation,
    "retake": Retake,
    "audio_to_video": AudioToVideo,
    "text_to_audio": TextToAudio,
}
DEFAULT_PIPELINE = "ti2vid_two_stages"
# Field -> the pipeline that a request means which has it and names none; the first that is there decides.
MEANT_BY: dict[str, str] = {
    "sound": "audio_to_video",
    "from_seconds": "retake",
    "reference_video": "ic_lora",
    "keyframes": "keyframe_interpolation",
}


def pipelines_of(family: Family) -> dict[str, type[VideoRequest]]:
    """Those that a family can make."""
    return {name: request for name, request in PIPELINES.items() if family.makes_sound or not request.needs_sound}


def fields_of(pipeline: str) -> dict[str, FieldInfo]:
    """What may be asked of it."""
    request = PIPELINES[pipeline]
    return {name: info for name, info in request.model_fields.items() if name not in request.idle}


def defaults_of(family: Family) -> dict[str, Any]:
    """The fields that a request may leave out because the family knows them."""
    guidance = family.sampling.guidance
    return {
        "num_frames": family.video.num_frames,
        "height": family.video.height,
        "width": family.video.width,
        "frame_rate": family.video.frame_rate,
        "num_inference_steps": family.sampling.num_inference_steps,
        "guidance_scale": guidance.scale,
        "guidance_rescale": guidance.rescale,
        "skip_guidance": {"scale": guidance.stg_scale, "blocks": guidance.stg_blocks} if guidance.stg_scale else None,
        "modality_guidance_scale": guidance.modality_scale,
        "audio_guidance": AudioGuidance.of(family.sampling.audio_guidance).model_dump(),
        "scheduler": family.sampling.scheduler,
    }


def choose_pipeline(model: str, *, named: object = None, fields: Collection[str] = ()) -> tuple[str, str]:
    """`FAMILY` or `FAMILY/PIPELINE`, and the pipeline where it is named apart -> the names of both.

    Where none is named, what the request has decides (`MEANT_BY`). Raises InvalidRequestError when the two contradict each other,
    UnknownModelError when there is no such pipeline.
    """
    family, _, suffix = model.partition("/")
    meant = next((pipeline for field, pipeline in MEANT_BY.items() if field in fields), DEFAULT_PIPELINE)
    pipeline = (suffix or meant) if named is None else named
    if suffix and pipeline != suffix:
        raise InvalidRequestError(
            f"model names pipeline {shown(suffix)} and pipeline says {shown(pipeline)}; leave one out", field="pipeline"
        )
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        field = "model" if suffix else "pipeline"
        raise UnknownModelError(f"pipeline {shown(pipeline)} is unknown; the pipelines are {', '.join(PIPELINES)}", field=field)
    return family, pipeline


def parse_request(record: dict[str, Any], *, family: Family) -> VideoRequest:
    """Fields by name -> a request. Raises InvalidRequestError naming the first field at fault, its value and the way out."""
    _, name = choose_pipeline(family.name, named=record.get("pipeline"), fields=record.keys())
    known = fields_of(name)
    if idle := record.keys() & PIPELINES[name].idle:
        raise _no_field(min(idle), known=list(known))
    if "sigmas" in known and record.get("sigmas") is not None and (idle := record.keys() & {"num_inference_steps", "scheduler"}):
        raise InvalidRequestError(f"sigmas are the steps, so {min(idle)} says nothing; leave one of them out", field="sigmas")
    defaults = {field: value for field, value in defaults_of(family).items() if field in known}
    defaults |= PIPELINES[name].usual(record, family)
    if family.is_distilled and "sigmas" in known and not record.keys() & {"num_inference_steps", "scheduler"}:
        defaults["sigmas"] = family.sampling.distilled_sigmas
    try:
        return PIPELINES[name].model_validate({**defaults, **record, "pipeline": name}).yielding(record.keys())
    except ValidationError as error:
        raise explain(error, known=list(known)) from error


def explain(error: ValidationError, *, known: list[str]) -> InvalidRequestError:
    """The first fault, as a field, its value and the way out."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return InvalidRequestError(f"{field} is required", field=field)
    if first["type"] == "extra_forbidden":
        return _no_field(field, known=known if len(first["loc"]) == 1 else [])
    message = first["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{field}: {message}, got {shown(first['input'])}", field=field)


def _no_field(field: str, *, known: list[str]) -> InvalidRequestError:
    way_out = f"the fields are {', '.join(known)}" if known else "leave it out"
    return InvalidRequestError(f"{field} is not a field of this pipeline; {way_out}", field=field)


def shown(value: object) -> str:
    """A client's value in an error message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
