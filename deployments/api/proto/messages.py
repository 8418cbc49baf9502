"""a message that asks for a video -> Body, as if it were JSON; JSON records of videos, plans and models -> messages"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import Parse, ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from aiprod_components.errors import InvalidRequestError
from deployments.api.body import MAX_BYTES, MAX_VALUES, Body, check_count
from deployments.api.proto.aiprod.v1.video_pb2 import Model, Preview, Video

EXACT = 2**53  # beyond, a double does not hold every integer
TIMES = ("created_at", "completed_at", "expires_at")


def read_body(request: Message) -> Body:
    """A message's typed fields that are set, its `settings` and its `files`. Raises InvalidRequestError."""
    if request.ByteSize() > MAX_BYTES:
        raise InvalidRequestError(f"the request must be at most {MAX_BYTES} bytes; send smaller files")
    typed = [field.name for field in request.DESCRIPTOR.fields if field.has_presence and field.name != "settings"]
    fields = {name: getattr(request, name) for name in typed if request.HasField(name)}
    if "video_id" in fields:
        fields["video"] = {"id": fields.pop("video_id")}
    settings = _read_settings(getattr(request, "settings", Struct()))
    files = _read_files(getattr(request, "files", {}))
    for name in [*settings, *files]:
        if name in fields or (name in settings and name in files):
            raise InvalidRequestError(f"{name} is given twice; give it once", field=name)
    body = Body(fields | settings, files, is_json=True)
    check_count(body.fields)
    return body


def _read_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    if len(files) > MAX_VALUES:
        raise InvalidRequestError(f"the request has more than {MAX_VALUES} files; leave out what is not needed", field="files")
    return dict(files)


def _read_settings(settings: Struct) -> dict[str, Any]:
    _check_size(settings)
    return _record(settings)


def _check_size(settings: Struct) -> None:
    """Before any of it becomes Python's: millions of values would hold up everybody."""
    count = 0
    waiting: list[Struct | ListValue] = [settings]
    while waiting:
        inner = waiting.pop()
        values = inner.fields.values() if isinstance(inner, Struct) else inner.values
        count += len(values)
        if count > MAX_VALUES:
            raise InvalidRequestError(f"settings has more than {MAX_VALUES} values; leave out what is not needed", field="settings")
        waiting.extend(nested for value in values if (nested := _nested(value)) is not None)


def _nested(value: Value) -> Struct | ListValue | None:
    kind = value.WhichOneof("kind")
    return getattr(value, kind) if kind in ("struct_value", "list_value") else None


def _record(settings: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in settings.fields.items()}


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    inner = getattr(value, kind)
    if isinstance(inner, Struct):
        return _record(inner)
    if isinstance(inner, ListValue):
        return [_plain(item) for item in inner.values]
    return _number(inner) if kind == "number_value" else inner


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) <= EXACT else value


def video_message(record: Mapping[str, Any]) -> Video:
    """A video as the HTTP API shows it."""
    times = {name: int(record[name]) for name in TIMES if record.get(name) is not None}
    return ParseDict({**record, **times, "status": record["status"].upper()}, Video(), ignore_unknown_fields=True)


def preview_message(record: Mapping[str, Any]) -> Preview:
    """{"image": "data:image/webp;base64,…"}"""
    head, _, data = record["image"].partition(",")
    return Preview(data=base64.b64decode(data), media_type=head.removeprefix("data:").removesuffix(";base64"))


def model_message(record: Mapping[str, Any]) -> Model:
    own = {name: record[name] for name in ("id", "title", "licence", "default_pipeline")}
    return Model(**own, details=struct_message(record))


def struct_message(record: Mapping[str, Any]) -> Struct:
    """What the record is as JSON."""
    return Parse(json.dumps(record), Struct())
