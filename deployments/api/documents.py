"""what is answered, as models -> the OpenAPI document's schemas, with every error and media type"""

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from deployments.api.sources import ExtensionFields, RemixFields
from deployments.api.wire import Wire
from deployments.jobs.analytics import Analytics

PROBLEM = "application/problem+json"
REF = "#/components/schemas/"


class JobError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class CurrentStep(BaseModel):
    """What is being worked on: step `done` of `total` of a stage is behind it (0 of 0: begun)."""

    step: str
    stage: str
    done: int
    total: int


class StageLine(BaseModel):
    """A finished step: where it ran and for how long, or that its result was there already."""

    step: str
    stage: str
    replica: str
    queued_seconds: float
    run_seconds: float
    gpus: int = Field(default=0, description="That it ran on; 0: a CPU.")
    cache_hit: bool
    attempt: int


class Video(BaseModel):
    """A job and its video. Times are seconds since 1970."""

    id: str
    object: Literal["video"]
    model: str
    pipeline: str
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    progress: int = Field(ge=0, le=100, description="Percent of the work.")
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    seconds: str
    size: str | None = Field(description="WIDTHxHEIGHT in pixels; null of a sound alone.")
    num_frames: int
    fps: float
    seed: int
    error: JobError | None
    remixed_from_video_id: str | None
    priority: int
    queue_position: int | None
    current: CurrentStep | None
    stages: list[StageLine]
    cost: float = Field(description="Predicted work in thousand token passes.")
    media_type: str | None
    frames_sha256: str | None


class VideoPage(BaseModel):
    """Videos in order of their creation; `after` the last_id comes the next page."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(BaseModel):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class ErrorPart(BaseModel):
    """What OpenAI's clients read of an error."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    error: ErrorPart


ANALYTICS = TypeAdapter(Analytics)
DOCUMENTS: tuple[type[BaseModel], ...] = (Video, VideoPage, DeletedVideo, Problem, RemixFields)
MEANINGS = {
    400: "The request cannot be met as asked; the message says what can.",
    401: "No API key, or one that does not hold.",
    403: "The key is not for this.",
    404: "There is nothing of that name.",
    409: "What is there is in another state.",
    413: "The body is too large.",
    415: "The body is of another type.",
    416: "The range is outside of the content.",
    422: "The idempotency key was used for another body.",
    429: "Too much at once; Retry-After says when.",
    500: "The server failed; its log says why.",
    503: "A stage is not there now.",
}
ALWAYS = (401, 403, 429, 500, 503)


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"{REF}{name}"}


def answers(media: dict[str, dict[str, Any]], *problems: int, description: str = "Done.") -> dict[int | str, dict[str, Any]]:
    """A route's answers: what it gives by media type, and the problems it may have."""
    content = {kind: {"schema": schema} for kind, schema in media.items()}
    return {200: {"description": description, "content": content}, **{status: problem_answer(status) for status in (*problems, *ALWAYS)}}


def problem_answer(status: int) -> dict[str, Any]:
    headers = {"retry-after": {"schema": {"type": "string"}, "description": "Seconds."}} if status in (429, 503) else {}
    return {"description": MEANINGS[status], "content": {PROBLEM: {"schema": ref("Problem")}}, "headers": headers}


def takes(schema: str, form: str) -> dict[str, Any]:
    """A route's body, as JSON or as a form."""
    content = {"application/json": {"schema": ref(schema)}, "multipart/form-data": {"schema": ref(form)}}
    return {"requestBody": {"required": True, "content": content}}


def describe_api(app: FastAPI, wire: Wire) -> dict[str, Any]:
    """The OpenAPI document of what is served here."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(model, "validation") for model in DOCUMENTS], ref_template=f"{REF}{{model}}")
    components: dict[str, Any] = document.setdefault("components", {})
    analytics = ANALYTICS.json_schema(ref_template=f"{REF}{{model}}", mode="serialization")
    components["schemas"] = {**schemas["$defs"], **analytics.pop("$defs"), "Analytics": analytics, **_request_schemas(wire)}
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key; where none is needed, none is looked at."}
    }
    for path in document["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # the framework's own; here it is a problem with status 400
    return document


def _request_schemas(wire: Wire) -> dict[str, Any]:
    """The bodies that ask for a video: one for each pipeline of each family, and which of them may be sent."""
    schemas: dict[str, Any] = {}
    for (family, pipeline), schema in wire.schemas.items():
        own = dict(schema)
        schemas |= own.pop("$defs", {})
        schemas[f"{family}.{pipeline}"] = own
    schemas["VideoRequest"] = {"anyOf": [ref(f"{family}.{pipeline}") for family, pipeline in wire.schemas]}
    schemas |= {
        "VideoForm": VIDEO_FORM,
        "EditRequest": _edit(VIDEO_ID),
        "EditForm": _edit(VIDEO_ID, BINARY),
        "ExtensionRequest": _extension(),
    }
    return _at_components(schemas)


TEXT, BINARY = {"type": "string", "minLength": 1}, {"type": "string", "format": "binary"}
VIDEO_ID = {
    "type": "object",
    "properties": {"id": {"type": "string", "description": "Of a finished video."}},
    "required": ["id"],
    "additionalProperties": False,
}
VIDEO_FORM = {
    "type": "object",
    "description": "The fields of VideoRequest as texts (groups and lists as JSON, or as group[field] and list[]), media as files.",
    "properties": {"prompt": TEXT, "model": TEXT, "input_reference": BINARY, "reference_video": BINARY, "sound": BINARY},
    "required": ["prompt"],
    "additionalProperties": True,
}


def _edit(*videos: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "The fields of the pipeline ic_lora besides; size and length are the video's own unless they are said.",
        "properties": {"prompt": TEXT, "video": {"anyOf": list(videos)}},
        "required": ["prompt", "video"],
        "additionalProperties": True,
    }


def _extension() -> dict[str, Any]:
    schema = ExtensionFields.model_json_schema()
    return {**schema, "properties": {**schema["properties"], "video": VIDEO_ID}, "required": [*schema["required"], "video"]}


def _at_components(schema: Any) -> Any:
    """A model's references, to where the document has what they refer to."""
    if isinstance(schema, dict):
        return {name: value.replace("#/$defs/", REF) if name == "$ref" else _at_components(value) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_at_components(item) for item in schema]
    return schema
