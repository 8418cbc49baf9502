"""HTTP body (JSON or multipart, of bounded size) -> fields and files, as the client named them"""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
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
MOST_MARKS = 3 * MAX_VALUES + 1  # texts, commas, lists and groups that so many values and their names can have
MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)
PARSED_AT_ONCE = 100_000  # bytes; more is parsed in a thread, for it takes longer than anybody else's request should wait
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
        data = await bounded.body()
        return parse_json(data) if len(data) <= PARSED_AT_ONCE else await asyncio.to_thread(parse_json, data)
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
    check_marks(data)
    try:
        fields = from_json(data)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"the body must be a JSON object, got {type(fields).__name__}")
    check_count(fields)
    return Body(fields, is_json=True)


def check_marks(*texts: bytes) -> None:
    """Raises InvalidRequestError for JSON texts of far more values than anybody needs, all together: before they are parsed, for ten
    million take seconds and a gigabyte. What is inside a text's own texts does not count."""
    if (
        sum(text.count(mark) for text in texts for mark in (b",", b"[", b"{")) <= MOST_MARKS
    ):  # most bodies: it takes a millisecond for each MB
        return
    marks = chain.from_iterable(map(MARK.finditer, texts))
    if any(islice(marks, MOST_MARKS, None)):
        raise _too_many()


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
            raise _too_many()
        waiting.extend(inner)


def _too_many() -> InvalidRequestError:
    return InvalidRequestError(f"the body has more than {MAX_VALUES} values; leave out what is not needed")


def parse_form(items: list[tuple[str, str | bytes]]) -> Body:
    """`outer[inner]=x` is the form's way to say {"outer": {"inner": "x"}}, `list[]=x` to say {"list": ["x"]}, and both together
    `list[][inner]=x` to say {"list": [{"inner": "x"}]}; OpenAI's client flattens its `extra_body` so."""
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    listed: dict[str, list[tuple[list[str], str]]] = {}
    for name, value in items:
        path = _path_of(name)
        if path[0] in files or (isinstance(value, bytes) and (name in fields or name in listed)):
            raise _twice(name)
        if isinstance(value, bytes):
            files[name] = value
        elif len(path) > 2 and not path[1]:
            listed.setdefault(path[0], []).append((path[2:], value))
        else:
            _put(fields, path, value, name=name)
    for name, parts in listed.items():
        if name in fields:
            raise _twice(name)
        fields[name] = [_group(rows, name=name) for rows in _rows(parts, name=name)]
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
        return
    inner = into.setdefault(key, {} if rest[0] else [])
    if isinstance(inner, list) and rest == [""]:
        inner.append(value)
    elif isinstance(inner, dict) and rest[0]:
        _put(inner, rest, value, name=name)
    else:
        raise _twice(name)


Parts = list[tuple[list[str], str]]


def _rows(parts: Parts, *, name: str) -> list[Parts]:
    """The parts of a list of groups, group by group: they come row by row, or, as OpenAI's client sends them, all of a field together."""
    keys = ["/".join(path) for path, _ in parts]
    counts = Counter(keys)
    if len(set(counts.values())) == 1:
        seen: Counter[str] = Counter()
        rows: list[Parts] = [[] for _ in range(counts[keys[0]])]
        for key, part in zip(keys, parts, strict=True):
            rows[seen[key]].append(part)
            seen[key] += 1
        return rows
    if len(list(groupby(keys))) == len(counts):
        raise InvalidRequestError(f"{name}: it cannot be told which values belong together; send the list as one text of JSON", field=name)
    return _row_by_row(keys, parts)


def _row_by_row(keys: list[str], parts: Parts) -> list[Parts]:
    """A group begins where a field comes again."""
    rows: list[Parts] = []
    there: set[str] = set()
    for key, part in zip(keys, parts, strict=True):
        if not rows or key in there:
            rows.append([])
            there = set()
        rows[-1].append(part)
        there.add(key)
    return rows


def _group(parts: Parts, *, name: str) -> dict[str, Any]:
    group: dict[str, Any] = {}
    for path, value in parts:
        _put(group, path, value, name=name)
    return group


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
