"""what is asked for -> the HTTP request that asks for it"""

import re
from collections.abc import Mapping
from json import dumps
from typing import Any
from uuid import uuid4

import httpx

from aiprod_client.effects import Request
from aiprod_client.errors import AiprodClientError
from aiprod_client.video import VideoJob

VIDEOS = "/v1/videos"
MODELS = Request("GET", "/v1/models")
READY = Request("GET", "/readyz")


def plan(body: Mapping[str, Any]) -> Request:
    return Request("POST", "/v1/plans", content=dumps(body).encode(), headers={"content-type": "application/json"})


def new_video(body: Mapping[str, Any], *, key: str | None, path: str = "") -> Request:
    """Repeatable by its idempotency key."""
    # Not httpx's encoding, which raises on NaN: the server knows how to refuse it by name.
    return _keyed(path, dumps(body).encode(), content_type="application/json", key=key)


def edit(body: Mapping[str, Any], video: bytes, *, key: str | None) -> Request:
    """A form, with the video as a file. Encoded here and now: under one key, every try must send the same bytes."""
    fields = {name: value if isinstance(value, str) else dumps(value) for name, value in body.items()}
    form = httpx.Request("POST", "http://encoded.invalid", data=fields, files={"video": ("video", video, "application/octet-stream")})
    return _keyed("/edits", form.read(), content_type=form.headers["content-type"], key=key)


def _keyed(path: str, content: bytes, *, content_type: str, key: str | None) -> Request:
    headers = {"content-type": content_type, "idempotency-key": key or str(uuid4())}
    return Request("POST", VIDEOS + path, content=content, headers=headers)


def listing(*, limit: int, after: str | None, order: str) -> Request:
    return Request("GET", VIDEOS, params={"limit": limit, "order": order, **({} if after is None else {"after": after})})


def retrieve(video: str | VideoJob) -> Request:
    return Request("GET", path_of(video))


def delete(video: str | VideoJob) -> Request:
    return Request("DELETE", path_of(video))


def cancel(video: str | VideoJob) -> Request:
    return Request("POST", f"{path_of(video)}/cancel")


def events(video: str | VideoJob) -> Request:
    # Whoever compresses a stream holds back its events.
    return Request("GET", f"{path_of(video)}/events", headers={"accept": "text/event-stream", "accept-encoding": "identity"})


def content(video: str | VideoJob, *, variant: str) -> Request:
    # A range is of the bytes that travel: they must be the file's own.
    return Request("GET", f"{path_of(video)}/content", params={"variant": variant}, headers={"accept-encoding": "identity"})


def path_of(video: str | VideoJob) -> str:
    return f"{VIDEOS}/{id_of(video)}"


def id_of(video: str | VideoJob) -> str:
    """Raises AiprodClientError for what cannot be an id, and might be another path."""
    name = video if isinstance(video, str) else video.id
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name):
        raise AiprodClientError(f"{name!r} is no video's id, such as video_0123456789abcdef", code="invalid_request", param="video")
    return name
