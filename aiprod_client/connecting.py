"""a server's URL and a key -> what httpx needs for either kind of client; its exceptions -> NoAnswerError"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from aiprod_client.effects import Request
from aiprod_client.errors import AiprodClientError, NoAnswerError

DEFAULT_SERVER = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
# Whatever proxy the environment names, this machine reaches itself without one.
DIRECT = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def server_url(named: str | None) -> str:
    """The one that is named, or else the environment's."""
    return (os.environ.get("AIPROD_SERVER") or DEFAULT_SERVER) if named is None else named


def http_options(base_url: str, *, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Raises AiprodClientError for what is no server's URL, and for what cannot be a key."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AiprodClientError(f"{base_url!r} is not a URL: {error}", code="invalid_url") from error
    if url.scheme not in ("http", "https") or not url.host or not (url.port is None or 0 < url.port < 65536):
        raise AiprodClientError(f"{base_url!r} is not a server's URL, such as {DEFAULT_SERVER}", code="invalid_url")
    # One for all transports: making it reads every certificate of the machine.
    certificates = httpx.create_ssl_context()
    return {"base_url": url, "headers": _authorization(api_key), "timeout": _http_timeout(timeout), "verify": certificates}


def _authorization(api_key: str | None) -> dict[str, str]:
    key = (os.environ.get("AIPROD_API_KEY", "") if api_key is None else api_key).strip()
    if not key:
        return {}
    if not re.fullmatch(r"[!-~]+", key):
        raise AiprodClientError("the API key is no key: it must be letters, digits and signs without spaces", code="invalid_api_key")
    return {"authorization": f"Bearer {key}"}


def http_arguments(request: Request, *, default: httpx.Timeout) -> dict[str, Any]:
    """What `build_request` takes."""
    seconds = min(request.timeout or default.read or math.inf, request.time_left)
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params) or None,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": _http_timeout(seconds),
    }


def _http_timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(None if math.isinf(seconds) else seconds, connect=min(seconds, CONNECT_SECONDS))


@contextmanager
def no_answer_of(base_url: str) -> Iterator[None]:
    """Raises NoAnswerError for whatever keeps an answer from coming."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise NoAnswerError(f"{base_url} did not answer in time", code="timeout") from error
    except httpx.HTTPError as error:
        raise NoAnswerError(f"{base_url} cannot be reached ({error})", code="unreachable") from error
