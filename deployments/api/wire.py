"""fields as the client named them -> a family, a pipeline's request and its plan; errors in the client's names

OpenAI's shape says `seconds`, `size`, `input_reference` and `fps` where a pipeline says num_frames, height and width, image and
frame_rate; media come as data URLs or as files (`uploads.py`). Everything else is a pipeline's field under its own name: a new
pipeline's numbers, texts and groups of them need nothing here.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, create_model
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from aiprod_components.errors import AiprodError, InvalidRequestError, UnavailableError, UnknownModelError
from aiprod_components.families.base import Family
from aiprod_components.pipelines import PIPELINES, choose_pipeline, defaults_of, explain, fields_of, parse_request, pipelines_of, shown
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import Plan
from deployments.api.body import Body, check_count, check_marks
from deployments.api.uploads import MEDIA, MEDIA_NAMES, Uploads

# A request's field -> the client's, where they differ.
RENAMED = {"frame_rate": "fps", "image": "input_reference"}
PART_OF = {"height": "size", "width": "size"}
DERIVED = ("extends",)  # what only a finished video's own request can say
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
JSON_BEGINS = ("[", "{")
JSON_NUMBER = re.compile(r"-?(0|[1-9]\d{0,30})(\.\d{1,30})?([eE][+-]?\d{1,4})?", re.ASCII)


def _read_seconds(value: Any) -> Any:
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value) else value


def _check_size(value: str) -> str:
    if not SIZE.fullmatch(value):
        raise ValueError('must be WIDTHxHEIGHT in pixels, such as "128x128"')
    return value


SECONDS_SCHEMA = {"type": ["string", "number"], "exclusiveMinimum": 0}
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_read_seconds), WithJsonSchema(SECONDS_SCHEMA)]


# What may be said of every job, whatever is asked for.
Priority = Annotated[int, Field(ge=-100, le=100, description="A head start before one's own other videos.")]
WebhookUrl = Annotated[str, Field(max_length=2000, description="Whom to tell when the video is finished, failed or cancelled.")]


Size = Annotated[str, AfterValidator(_check_size)]


class VideoFields(BaseModel):
    """OpenAI's fields that every pipeline has. `wire_model` adds a pipeline's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="", description="A family, or FAMILY/PIPELINE.")
    seconds: Seconds | None = Field(default=None, description="Length: the most frames that last no longer. Or say num_frames.")
    priority: Priority = 0
    webhook_url: WebhookUrl = ""


@dataclass(frozen=True)
class Asked:
    """A request that has been understood."""

    family: Family
    request: VideoRequest
    plan: Plan
    priority: int = 0
    webhook_url: str | None = None


@contextmanager
def wire_names() -> Iterator[None]:
    """Errors that name a request's field leave naming the client's."""
    try:
        yield
    except InvalidRequestError as error:
        raise in_wire_names(error) from error


def in_wire_names(error: AiprodError) -> AiprodError:
    field = error.field or ""
    if field in PART_OF:
        return type(error)(f"{PART_OF[field]}: {error.message}", field=PART_OF[field])
    if field in RENAMED:
        return type(error)(RENAMED[field] + error.message.removeprefix(field), field=RENAMED[field])
    return error


def wire_model(family: Family, pipeline: str) -> type[VideoFields]:
    """What may be asked of a pipeline: its own fields, with the family's defaults, and OpenAI's in place of those that they stand for."""
    defaults, known = defaults_of(family) | PIPELINES[pipeline].usual({}, family), fields_of(pipeline)
    own = {name: info for name, info in known.items() if name not in (*PART_OF, *MEDIA, *DERIVED)}
    fields = {RENAMED.get(name, name): _with_default(info, defaults.get(name, info.default)) for name, info in own.items()}
    for name in MEDIA:
        if name in known:
            fields |= MEDIA[name]
    if "width" in known:
        size = Field(f"{defaults['width']}x{defaults['height']}", description="WIDTHxHEIGHT in pixels.")
        fields = {"size": Annotated[Size, size], **fields}
    fields["model"] = _with_default(VideoFields.model_fields["model"], f"{family.name}/{pipeline}")
    return create_model(f"{pipeline}_fields", __base__=VideoFields, **fields)  # type: ignore[call-overload]


def _with_default(info: FieldInfo, default: Any) -> Any:
    if info.default_factory is not None:
        return Annotated[info.annotation, *info.metadata, Field(default_factory=info.default_factory, description=info.description)]
    return Annotated[info.annotation, *info.metadata, Field(default, description=info.description)]


class Wire:
    """Reads bodies for the families that are served. `faults` says of others why they are not; `default` (else the first) is meant where
    a body names none."""

    def __init__(self, families: Mapping[str, Family], *, faults: Mapping[str, str] | None = None, default: str | None = None) -> None:
        self.families, self.faults = families, faults or {}
        self._default = default or next(iter(families), "")
        offered = [(family, pipeline) for family in families.values() for pipeline in pipelines_of(family)]
        self.models = {(family.name, pipeline): wire_model(family, pipeline) for family, pipeline in offered}
        self.schemas = {key: _schema(model, pipeline=PIPELINES[key[1]]) for key, model in self.models.items()}

    def read(self, body: Body) -> Asked:
        """Raises InvalidRequestError in the client's names: the field, its value and the way out. Decodes pictures, so takes a while."""
        family, pipeline = self._choose(body)
        fields = self._validated(body, (family.name, pipeline))
        record = {"pipeline": pipeline, **_record(fields, body, family=family, pipeline=PIPELINES[pipeline])}
        with wire_names():
            request = parse_request(record, family=family)
            return Asked(family, request, request.plan(family), fields.priority, fields.webhook_url or None)

    def _choose(self, body: Body) -> tuple[Family, str]:
        fields = body.fields
        model, pipeline = fields.get("model", self._default), fields.get("pipeline")
        if not isinstance(model, str):
            raise InvalidRequestError(
                f"model must be a string, got {shown(model)}; the models are {', '.join(self.families)}", field="model"
            )
        if pipeline is None and "pipeline" in fields:
            raise InvalidRequestError(f"pipeline must be one of {', '.join(PIPELINES)}, or left out; got null", field="pipeline")
        given = {name for name, value in fields.items() if value is not None} | body.files.keys()
        name, pipeline = choose_pipeline(model, named=pipeline, fields=given)
        self.check_fault(name)
        if name not in self.families:
            raise UnknownModelError(f"model {shown(model)} is not served here; there is {', '.join(self.families)}", field="model")
        PIPELINES[pipeline].check_family(self.families[name])
        return self.families[name], pipeline

    def check_fault(self, name: str) -> None:
        """Raises UnavailableError for a family that should be served and cannot be."""
        if name in self.faults:
            raise UnavailableError(f"model {name} cannot be served now: {self.faults[name]}", field="model")

    def _validated(self, body: Body, key: tuple[str, str]) -> VideoFields:
        model = self.models[key]
        fields = body.fields if body.is_json else _typed(body.fields, self.schemas[key])
        # A medium that is null is not there, whatever the pipeline: clients' libraries send every field they know.
        sent = {name: value for name, value in fields.items() if value is not None or name not in MEDIA_NAMES}
        try:
            return model.model_validate_json(json.dumps(sent), strict=True)
        except ValidationError as error:
            raise explain(error, known=list(model.model_fields)) from error


def _schema(model: type[VideoFields], *, pipeline: type[VideoRequest]) -> dict[str, Any]:
    """As a client must fill it in: required are also the media that a pipeline needs, which for the model may come as files."""
    schema, own = model.model_json_schema(), pipeline.model_fields
    needed = [next(iter(fields)) for name, fields in MEDIA.items() if name in own and own[name].is_required()]
    for name in needed:
        del schema["properties"][name]["default"]
    return {**schema, "required": [*schema["required"], *needed]}


def _typed(fields: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A form's texts -> what JSON would say: texts where the field is one, else what the text says as JSON."""
    kinds = {name: schema["properties"].get(name, {"type": "string"}) for name in fields}
    check_marks(*(text.encode() for name, value in fields.items() if not _is_text(kinds[name]) for text in _json_texts(value)))
    typed = {name: value if _is_text(kinds[name]) else _from_text(value, kinds[name], field=name) for name, value in fields.items()}
    check_count(typed)
    return typed


def _is_text(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return "string" in kind if isinstance(kind, list) else kind == "string"


def _json_texts(value: Any) -> Iterator[str]:
    """Those of a form's value, however nested, that are a list or a group of values."""
    if isinstance(value, str) and value[:1] in JSON_BEGINS:
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _json_texts(inner)


def _from_text(value: Any, schema: Mapping[str, Any], *, field: str) -> Any:
    if isinstance(value, dict):
        return {name: _from_text(inner, {}, field=field) for name, inner in value.items()}
    if isinstance(value, list):
        items = schema.get("items", {})
        return [inner if _is_text(items) else _from_text(inner, items, field=field) for inner in value]
    if re.fullmatch(JSON_NUMBER, value) or value in ("true", "false"):
        return from_json(value)
    if value[:1] not in JSON_BEGINS:
        return value
    try:
        return from_json(value)
    except ValueError as error:
        raise InvalidRequestError(f"{field} is not JSON ({error}): {shown(value)}", field=field) from error


def _record(fields: BaseModel, body: Body, *, family: Family, pipeline: type[VideoRequest]) -> dict[str, Any]:
    """The client's fields -> the request's, those that were given."""
    given = {name: value for name in fields.model_fields_set if (value := getattr(fields, name)) is not None}
    record = {name: value for name, value in given.items() if name not in (*VideoFields.model_fields, *MEDIA_NAMES, "size")}
    if "fps" in record:
        record["frame_rate"] = record.pop("fps")
    if "size" in given:
        width, height = map(int, given["size"].split("x"))
        record |= {"width": width, "height": height}
    if "seconds" in given:
        if "num_frames" in given:
            raise InvalidRequestError("seconds and num_frames say the same thing; leave one out", field="seconds")
        frame_rate = record.get("frame_rate", family.video.frame_rate)
        record["num_frames"] = frames_within(
            given["seconds"], frame_rate=frame_rate, family=family, every=family.grid.time if pipeline.has_pictures else 1
        )
    return record | Uploads(given, body.files).read()


def frames_within(seconds: float, *, frame_rate: float, family: Family, every: int) -> int:
    """The most frames, 1 + a multiple of `every`, that last at most `seconds`, but one at least."""
    longest = family.limits.max_frames / frame_rate
    if seconds > longest:
        raise InvalidRequestError(f"seconds must be at most {longest:.4g} at {frame_rate:g} fps, got {seconds:g}", field="seconds")
    frames = max(math.floor(seconds * frame_rate + 1e-6), 1)
    return (frames - 1) // every * every + 1
