"""bodies of far too many values, or of very long texts -> refused, or read, without holding up anybody else"""

import asyncio
import json
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import Request

from aiprod_components.errors import InvalidRequestError
from deployments.api import body, wire
from deployments.api.body import MAX_VALUES, MOST_MARKS, PARSED_AT_ONCE, Body, check_marks, parse_form, parse_json, read_body
from tests.api.conftest import WIRE

TOO_MANY = "more than 2000 values"
LONG = PARSED_AT_ONCE * 2
CROWDS = {
    "lists": b'{"a":[' + b"[]," * 1_000_000 + b"[]]}",
    "texts": b'{"a":["' + b'","' * 1_000_000 + b'"]}',
    "numbers": b'{"a":[' + b"1," * 1_000_000 + b"1]}",
    "groups in each other": b'{"a":' * 1_000_000,
    "names": b"{" + b'"a":1,' * 1_000_000 + b'"a":1}',
    "after a long text": b'{"a":"' + b'\\",' * 1_000_000 + b'","b":[' + b"[]," * 10_000 + b"[]]}",
}


def refuse(*arguments: Any, **more: Any) -> Any:
    raise AssertionError("it was parsed")


@pytest.mark.parametrize("name", CROWDS)
def test_too_many_values_are_refused_before_they_are_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "from_json", refuse)
    with pytest.raises(InvalidRequestError, match=TOO_MANY):
        parse_json(CROWDS[name])


def test_too_many_values_in_the_texts_of_a_form_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "from_json", refuse)
    few = "[" + "[]," * (MOST_MARKS // 8) + "[]]"
    crowds: list[list[tuple[str, str | bytes]]] = [
        [("loras", CROWDS["lists"].decode()[5:-1])],
        [("keyframes[a][b]", "[" + "[]," * MOST_MARKS)],
        [("sigmas", few), ("loras", few), ("keyframes", few), ("guidance_interval", few), ("skip_guidance", few)],
    ]
    for items in crowds:
        with pytest.raises(InvalidRequestError, match=TOO_MANY):
            WIRE.read(parse_form([("prompt", "a ball"), *items]))


def test_as_many_values_as_may_be_are_parsed_whatever_stands_in_their_texts() -> None:
    texts = ['[{,:\\"' * 20] * (MAX_VALUES // 2 - 1)
    fields = {"a": texts, "b": {f'"{number}"': [] for number in range(MAX_VALUES // 2 - 1)}}
    assert parse_json(json.dumps(fields).encode()).fields == fields
    with pytest.raises(InvalidRequestError, match=TOO_MANY):
        parse_json(json.dumps({**fields, "c": 1}).encode())


def test_a_prompt_of_a_form_may_have_as_many_commas_as_it_likes() -> None:
    prompt = "[" + "a ball, " * MOST_MARKS
    items: list[tuple[str, str | bytes]] = [("prompt", prompt), ("num_frames", "5"), ("loras", json.dumps([{"name": "canny,[{" * 9000}]))]
    with pytest.raises(InvalidRequestError, match=r"loras\.0\.name: String should have at most 100"):
        WIRE.read(parse_form(items))


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 5_000_000, b"\\" * 5_000_000, b'"' * 5_000_000, b'"' + b"," * 10_000_000], ids=range(4))
def test_no_text_takes_long_to_count(text: bytes) -> None:
    started = time.process_time()
    with suppress(InvalidRequestError):
        check_marks(text + b"," * MOST_MARKS)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(("size", "elsewhere"), [(10, False), (LONG, True)])
def test_a_long_body_is_parsed_in_a_thread(size: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def parse(data: bytes) -> Body:
        threads.append(threading.get_ident())
        return parse_json(data)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({"prompt": "a" * size}).encode(), "more_body": False}

    monkeypatch.setattr(body, "parse_json", parse)
    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    assert asyncio.run(read_body(request)).fields == {"prompt": "a" * size}
    assert [thread != threading.get_ident() for thread in threads] == [elsewhere]
