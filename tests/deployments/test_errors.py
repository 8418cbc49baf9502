"""errors raised in a route -> problem documents"""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from ray.serve.exceptions import BackPressureError
from starlette.exceptions import HTTPException

from aiprod_components import errors as tree
from aiprod_components.errors import (
    AiprodError,
    CheckpointError,
    InvalidMediaError,
    InvalidRequestError,
    UnavailableError,
    UnknownModelError,
)
from deployments.api import errors


def answer_to(error: Exception) -> httpx.Response:
    api = FastAPI()
    errors.install(api)

    @api.get("/")
    async def fail() -> None:
        raise error

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/")

    return asyncio.run(get())


def test_the_body_is_a_problem_document_that_openai_s_client_can_read() -> None:
    answer = answer_to(InvalidMediaError("input_reference is not a picture; send PNG", field="input_reference"))
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:aiprod:error:invalid_media",
        "title": "Bad Request",
        "status": 400,
        "detail": "input_reference is not a picture; send PNG",
        "error": {
            "message": "input_reference is not a picture; send PNG",
            "type": "invalid_request_error",
            "param": "input_reference",
            "code": "invalid_media",
        },
    }


STATUSES: list[tuple[Exception, int, str, str | None]] = [
    (InvalidRequestError("no"), 400, "invalid_request", None),
    (UnknownModelError("no"), 404, "model_not_found", None),
    (UnavailableError("later"), 503, "unavailable", "5"),
    (BackPressureError(9, 8), 429, "queue_full", "5"),
    (HTTPException(413, "too much"), 413, "body_too_large", None),
    (HTTPException(415, "what"), 415, "unsupported_media_type", None),
    (tree.CancelledError("gone"), 499, "cancelled", None),
]


@pytest.mark.parametrize(("error", "status", "code", "retry_after"), STATUSES, ids=lambda value: type(value).__name__)
def test_each_kind_of_error_has_its_status(error: Exception, status: int, code: str, retry_after: str | None) -> None:
    answer = answer_to(error)
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers.get("retry-after")) == (status, code, retry_after)


@pytest.mark.parametrize("error", [ValueError("/secret/path"), CheckpointError("/secret/path"), KeyError("secret")], ids=repr)
def test_what_nobody_foresaw_is_a_500_that_tells_nothing(error: Exception) -> None:
    answer = answer_to(error)
    assert answer.status_code == 500 and answer.json()["error"] == {
        "message": "the server failed on this request; its log says why under this request's id",
        "type": "server_error",
        "param": None,
        "code": "internal",
    }
    assert "secret" not in answer.text and "Traceback" not in answer.text


def test_every_error_of_the_tree_has_a_status() -> None:
    def below(kind: type[AiprodError]) -> list[type[AiprodError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in below(child))]

    statuses: dict[str, Any] = {kind.__name__: errors.status_of(kind("x")) for kind in below(AiprodError)}
    assert all(status >= 400 for status in statuses.values()) and len(statuses) >= len(errors.STATUS)
