"""request -> JSON and the media that it names -> the same request: how it outlives the process that read it"""

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from aiprod_components.errors import UnknownModelError
from aiprod_components.families.base import Family
from aiprod_components.pipelines import PIPELINES, defaults_of, explain, fields_of, shown
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.values import Footage, Picture, Sound

MEDIA: dict[str, type[Picture | Footage | Sound]] = {"picture": Picture, "footage": Footage, "sound": Sound}


def dump_request(request: VideoRequest) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The request as JSON, and its media's bytes by their SHA-256, which stands in the JSON for them."""
    media: dict[str, bytes] = {}
    return _dumped(request, media), media


def load_request(record: dict[str, Any], *, media: Callable[[str], bytes], family: Family) -> VideoRequest:
    """What `dump_request` wrote; `media` gives bytes by their SHA-256. A field that is newer than the record has the family's default.

    Raises UnknownModelError or InvalidRequestError when there is no such pipeline or field any more, and what `media` raises.
    """
    name = record.get("pipeline")
    if name not in PIPELINES:
        raise UnknownModelError(f"pipeline {shown(name)} is unknown; the pipelines are {', '.join(PIPELINES)}", field="pipeline")
    known = fields_of(name)
    defaults = {field: value for field, value in defaults_of(family).items() if field in known}
    try:
        return PIPELINES[name].model_validate(defaults | _loaded(record, media))
    except ValidationError as error:
        raise explain(error, known=list(known)) from error


def _dumped(value: Any, media: dict[str, bytes]) -> Any:
    for kind, medium in MEDIA.items():
        if isinstance(value, medium):
            media[value.digest] = value.data
            return {kind: value.digest, "known": _adapter(medium).dump_python(value, mode="json", exclude={"data"})}
    if isinstance(value, BaseModel):
        return {name: _dumped(field, media) for name, field in value}
    if isinstance(value, tuple):
        return [_dumped(item, media) for item in value]
    return value


def _loaded(value: Any, media: Callable[[str], bytes]) -> Any:
    if isinstance(value, list):
        return tuple(_loaded(item, media) for item in value)
    if not isinstance(value, dict):
        return value
    for kind, medium in MEDIA.items():
        if _stands_for(value, kind):
            return _adapter(medium).validate_python({**value["known"], "data": media(value[kind])})
    return {name: _loaded(field, media) for name, field in value.items()}


def needs_media(record: Any) -> bool:
    """Whether media are needed to load what `dump_request` wrote."""
    if isinstance(record, dict):
        return any(_stands_for(record, kind) for kind in MEDIA) or any(map(needs_media, record.values()))
    return isinstance(record, list) and any(map(needs_media, record))


def _stands_for(value: dict[str, Any], kind: str) -> bool:
    return value.keys() == {kind, "known"}


@cache
def _adapter(medium: type[Picture | Footage | Sound]) -> TypeAdapter[Any]:
    return TypeAdapter(medium)
