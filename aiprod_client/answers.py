"""HTTP answers and the JSON in them -> values, or the error that they tell of"""

import base64
import json
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from aiprod_client.errors import AiprodClientError
from aiprod_client.video import Event, PreviewEvent, VideoEvent, VideoJob, VideoPage

_JOB = TypeAdapter(VideoJob)
_PAGE = TypeAdapter(VideoPage)


def refusal(answer: httpx.Response) -> AiprodClientError:
    """In the server's words, where it has any."""
    request_id = answer.headers.get("x-request-id")
    try:
        said = answer.json()["error"]
        message, code, param = said["message"], said["code"], said.get("param")
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code} {answer.reason_phrase} and gave no reason"
        code, param = "http_error", None
    return AiprodClientError(message, code=code, param=param, status=answer.status_code, request_id=request_id)


def read_record(answer: httpx.Response, *, needed: str) -> dict[str, Any]:
    """A JSON object that has a field. Raises AiprodClientError for anything else."""
    try:
        record = answer.json()
    except ValueError:
        record = None
    if not isinstance(record, dict) or needed not in record:
        server = str(answer.url.copy_with(raw_path=b"/")).rstrip("/")
        raise not_aiprod(f"{server} is no AIPROD server: it answered without {needed!r}")
    return record


def read_video(answer: httpx.Response) -> VideoJob:
    return video_of(read_record(answer, needed="id"))


def read_page(answer: httpx.Response) -> VideoPage:
    record = read_record(answer, needed="data")
    try:
        return _PAGE.validate_python({**record, "data": [video_of(item) for item in record["data"]]})
    except (ValidationError, TypeError) as error:
        raise not_aiprod(f"the server's list of videos is none: {error}") from error


def video_of(record: dict[str, Any]) -> VideoJob:
    try:
        return _JOB.validate_python({**record, "record": record})
    except (ValidationError, TypeError) as error:
        raise not_aiprod(f"the server's video is none: {error}") from error


def event_of(kind: str, data: str) -> Event | None:
    """None for a kind of event that is newer than this client."""
    if kind not in ("video", "preview"):
        return None
    try:
        record = json.loads(data)
        return VideoEvent(video_of(record)) if kind == "video" else _preview(record["image"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_aiprod(f"the server's {kind} event is none: {error}") from error


def not_aiprod(message: str) -> AiprodClientError:
    return AiprodClientError(" ".join(message.split()), code="not_aiprod")


def _preview(url: str) -> PreviewEvent:
    kind, _, data = url.partition(",")
    return PreviewEvent(base64.b64decode(data, validate=True), kind.removeprefix("data:").partition(";")[0])
