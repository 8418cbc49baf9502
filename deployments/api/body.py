"""HTTP body (JSON or multipart, of bounded size) -> fields and files, as the client named them"""

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from aiprod_components.errors import InvalidRequestError

MAX_BYTES = 35_000_000  # the largest video in base64, and some words
MAX_VALUES = 2000  # that an honest body has, however nested
BRACKETED = re.compile(r"[^\[\]]+(\[[^\[\]]*\]){1,4}")


@dataclass(frozen=True)
class Body:
    """What was sent. The values of a form are texts, all of them."""

    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    is_json: bool = False


async def read_body(request: Request) -> Body:
    """Raises InvalidRequestError, or HTTPException 413 or 415."""
    kind, charset = _media_type(request)
    if charset not in ("utf-8", "us-ascii"):
        raise HTTPException(415, f"the body must be in UTF-8, got {charset!r}")
    bounded = Request(request.scope, _bounded(request.receive))
    if kind == "application/json":
        return parse_json(await bounded.body())
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return parse_form(await _form_items(bounded))
    raise HTTPException(415, f"content-type must be application/json or multipart/form-data, got {kind!r}")


async def _form_items(request: Request) -> list[tuple[str, str | bytes]]:
    try:
        async with request.form(max_part_size=MAX_BYTES) as form:
            return [(name, await v.read() if isinstance(v, UploadFile) else v) for name, v in form.multi_items()]
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidRequestError(f"the body is not the form that its content-type names: {error.detail}; send it again whole") from error


def _media_type(request: Request) -> tuple[str, str]:
    """The body's content type and charset."""
    kind, options = parse_options_header(request.headers.get("content-type") or "none/none")
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    return kind.decode("latin-1"), charset.replace("utf8", "utf-8")


def parse_json(data: bytes) -> Body:
    """Raises InvalidRequestError when the text is not a JSON object."""
    try:
        fields = from_json(data)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"the body must be a JSON object, got {type(fields).__name__}")
    check_count(fields)
    return Body(fields, is_json=True)


def check_count(fields: Any) -> None:
    """Raises InvalidRequestError for more values than anybody needs (naming every fault of a million takes minutes), and for what
    PostgreSQL cannot store."""
    count, waiting = 0, [fields]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, str) and "\0" in value:
            raise InvalidRequestError("a text has the character NUL, which none may have; leave it out")
        count += len(inner)
        if count > MAX_VALUES:
            raise InvalidRequestError(f"the body has more than {MAX_VALUES} values; leave out what is not needed")
        waiting.extend(inner)


def parse_form(items: list[tuple[str, str | bytes]]) -> Body:
    """`outer[inner]=x` is the form's way to say {"outer": {"inner": "x"}}, `list[]=x` to say {"list": ["x"]}, and both together
    `list[][inner]=x` to say {"list": [{"inner": "x"}]}; OpenAI's client flattens its `extra_body` so."""
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, value in items:
        path = _path_of(name)
        if path[0] in files or (isinstance(value, bytes) and name in fields):
            raise _twice(name)
        if isinstance(value, bytes):
            files[name] = value
        else:
            _put(fields, path, value, name=name)
    check_count(fields)
    return Body(fields, files)


def _path_of(name: str) -> list[str]:
    """The parts of a field's name: a[b][] is a, b and the empty one, which stands for the next of a list."""
    if not BRACKETED.fullmatch(name):
        return [name]
    outer, *inner = name.split("[")
    return [outer, *(part.removesuffix("]") for part in inner)]


def _put(into: dict[str, Any], path: list[str], value: str, *, name: str) -> None:
    key, *rest = path
    if not rest:
        if key in into:
            raise _twice(name)
        into[key] = value
    elif rest[0]:
        inner = into.setdefault(key, {})
        if not isinstance(inner, dict):
            raise _twice(name)
        _put(inner, rest, value, name=name)
    else:
        listed = into.setdefault(key, [])
        if not isinstance(listed, list):
            raise _twice(name)
        _append(listed, rest[1:], value, name=name)


def _append(listed: list[Any], path: list[str], value: str, *, name: str) -> None:
    """A list's next value; of groups, one begins where a field comes again."""
    if not path:
        listed.append(value)
        return
    if listed and isinstance(listed[-1], dict) and (path[0] not in listed[-1] or len(path) > 1):
        _put(listed[-1], path, value, name=name)
        return
    listed.append({})
    _put(listed[-1], path, value, name=name)


def _twice(name: str) -> InvalidRequestError:
    field = name.partition("[")[0]
    return InvalidRequestError(f"{name} is given twice; give it once", field=field)


def _bounded(receive: Receive) -> Receive:
    size = 0

    async def receive_within_limit() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BYTES:
            raise HTTPException(413, f"the body must be at most {MAX_BYTES} bytes; send smaller files")
        return message

    return receive_within_limit
