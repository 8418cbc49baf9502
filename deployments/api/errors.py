"""what went wrong -> one problem document: the only place where the error tree meets HTTP

The body is RFC 9457 and, under `error`, what OpenAI's clients parse. `x-request-id` is added to every answer by Serve's proxy.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray.serve.exceptions import BackPressureError
from starlette.exceptions import HTTPException

from aiprod_components import errors

log = logging.getLogger("ray.serve")

RETRY_AFTER_SECONDS = 5

T = TypeVar("T")

# Here and below the nearest class in an error's ancestry decides.
STATUS: dict[type[errors.AiprodError], int] = {
    errors.AiprodError: 500,
    errors.InvalidRequestError: 400,
    errors.UnknownModelError: 404,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.IdempotencyError: 422,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.BusyError: 429,
    errors.UnsatisfiableRangeError: 416,
    errors.CheckpointError: 500,
    errors.ConfigError: 500,
    errors.CancelledError: 499,
    errors.UnavailableError: 503,
}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported_media_type"}
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

# What clients do next: OpenAI's tries 408, 409, 429 and 5xx again by itself, with a 409 in vain.
IN_VAIN = {"x-should-retry": "false"}
ADVICE = {
    401: {"www-authenticate": "Bearer"},
    409: IN_VAIN,
    429: {"retry-after": str(RETRY_AFTER_SECONDS)},
    503: {"retry-after": str(RETRY_AFTER_SECONDS)},
}
# What only the error itself knows of that.
HEADERS: dict[type[errors.AiprodError], Callable[[Any], dict[str, str]]] = {
    errors.AiprodError: lambda error: {},
    errors.BusyError: lambda error: {"retry-after": str(error.retry_after)},
    errors.QuotaError: lambda error: {"retry-after": str(error.retry_after), **IN_VAIN},  # for hours
    errors.UnsatisfiableRangeError: lambda error: {"content-range": f"bytes */{error.size}"},
}


def problem(status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """The document of RFC 9457, with what OpenAI's clients read beside it."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {
        "type": f"urn:aiprod:error:{code}",
        "title": _title(status),
        "status": status,
        "detail": message,
        "error": {"message": message, "type": kind, "param": param, "code": code},
    }
    advice = {} if headers and IN_VAIN.items() <= headers.items() else ADVICE.get(status, {})
    return JSONResponse(body, status, headers={**advice, **(headers or {})}, media_type="application/problem+json")


def status_of(error: errors.AiprodError) -> int:
    return _nearest(STATUS, error)


def _nearest(table: Mapping[type[errors.AiprodError], T], error: errors.AiprodError) -> T:
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def install(api: FastAPI) -> None:
    """Every way in which a route can fail, as a problem document."""
    api.add_exception_handler(errors.AiprodError, _aiprod_error)
    api.add_exception_handler(BackPressureError, _full)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid_parameter)
    api.add_exception_handler(Exception, _unforeseen)


def _aiprod_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.AiprodError)
    status = status_of(error)
    if status == 500:
        return _unforeseen(request, error)
    return problem(status, error.message, code=error.code, param=error.field, headers=_nearest(HEADERS, error)(error))


def _invalid_parameter(request: Request, error: Exception) -> JSONResponse:
    """Of the path, the query or a header: bodies are read by `wire`."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return problem(400, f"{name}: {first['msg']}, got {str(first.get('input'))[:60]!r}", code="invalid_request", param=name)


def _full(request: Request, error: Exception) -> JSONResponse:
    return problem(429, f"all stages are busy and the queue is full; try again in {RETRY_AFTER_SECONDS} s", code="queue_full")


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, headers, path = error.status_code, dict(error.headers or {}), request.url.path
    said = {
        404: f"there is no {path}; GET /openapi.json lists the routes",
        405: f"{path} does not take {request.method}; GET /openapi.json lists the routes",
    }
    own = error.detail != _title(status)  # ours say more than the framework's bare phrase
    message = error.detail if own else said.get(status, error.detail)
    return problem(status, str(message), code=CODES.get(status, "http_error"), headers=headers)


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Tells the log everything and the client nothing but that it was not at fault."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "the server failed on this request; its log says why under this request's id", code="internal")


def _title(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Client Closed Request"
