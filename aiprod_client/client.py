"""prompt and settings -> HTTP -> a finished video, or an error that says what to do"""

import re
import time
from dataclasses import dataclass
from json import dumps
from types import TracebackType
from typing import Any, Self

import httpx

from aiprod_client.settings import VideoSettings

_STAGE_TIME = re.compile(r'([^\s;,]+);dur=([0-9.]+);desc="([^"]*)"')
RUNNING, DEPLOY_FAILED = "RUNNING", "DEPLOY_FAILED"  # an application's states that decide something
_NOT_THE_REQUEST = {401, 403, 408, 409, 429}  # refused, but asking for something else would not help


class AiprodClientError(Exception):
    """What the server said: `message`, the request's field at fault (`param`), a stable `code`, the HTTP status (None: no answer)."""

    def __init__(self, message: str, *, code: str, param: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.param, self.status = message, code, param, status

    @property
    def is_bad_input(self) -> bool:
        """Whether another request would fare better."""
        return self.status is not None and 400 <= self.status < 499 and self.status not in _NOT_THE_REQUEST


@dataclass(frozen=True)
class StageTime:
    """How long a step of the plan was at its stage, in seconds."""

    step: str
    stage: str
    seconds: float


@dataclass(frozen=True)
class GeneratedVideo:
    """A finished video (mp4) or still (PNG, WebP) and how it came to be; equal frames have an equal `frames_sha256`.

    `seconds` is the whole time from asking to having; the steps' `timings` leave out waiting and the way between stages.
    """

    data: bytes
    seed: int
    pipeline: str
    frames_sha256: str
    seconds: float
    timings: tuple[StageTime, ...]
    media_type: str = "video/mp4"


class Client:
    """Talks to an AIPROD server; every method raises AiprodClientError when the server says no or nothing."""

    def __init__(self, base_url: str = "http://127.0.0.1:8000", *, timeout: float = 600.0) -> None:
        self.base_url = base_url
        # Whatever proxy the environment names, this machine reaches itself without one.
        direct = {"all://127.0.0.1": httpx.HTTPTransport(), "all://localhost": httpx.HTTPTransport()}
        try:
            self._http = httpx.Client(base_url=base_url, timeout=httpx.Timeout(timeout, connect=10.0), mounts=direct)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise AiprodClientError(f"{base_url!r} is not a URL: {error}", code="invalid_url") from error
        url = self._http.base_url
        if url.scheme not in ("http", "https") or not url.host or not (url.port is None or 0 < url.port < 65536):
            self._http.close()
            raise AiprodClientError(f"{base_url!r} is not a server's URL, such as http://127.0.0.1:8000", code="invalid_url")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def generate(self, prompt: str, settings: VideoSettings = VideoSettings()) -> GeneratedVideo:
        """Waits for the video."""
        started = time.perf_counter()
        answer = self._send("POST", "/v1/videos/sync", json=settings.body(prompt))
        try:
            return GeneratedVideo(
                data=answer.content,
                seed=int(answer.headers["x-aiprod-seed"]),
                pipeline=answer.headers["x-aiprod-pipeline"],
                frames_sha256=answer.headers["x-aiprod-frames-sha256"],
                seconds=time.perf_counter() - started,
                timings=_stage_times(answer.headers.get("server-timing", "")),
                media_type=answer.headers["content-type"],
            )
        except (KeyError, ValueError) as error:
            raise AiprodClientError(f"{self.base_url} is no AIPROD server: it answered without {error}", code="not_aiprod") from error

    def plan(self, prompt: str, settings: VideoSettings = VideoSettings()) -> dict[str, Any]:
        """The steps of the request with the work of each; runs nothing."""
        return self._read(self._send("POST", "/v1/plans", json=settings.body(prompt)), needed="steps")

    def models(self) -> list[dict[str, Any]]:
        """The served families with their pipelines, limits and sizes."""
        return self._read(self._send("GET", "/v1/models"), needed="data")["data"]

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether the server answers and all its applications are up."""
        return set(self.applications(timeout=timeout).values()) == {RUNNING}

    def applications(self, *, timeout: float = 5.0) -> dict[str, str]:
        """The state of each application in Ray Serve's words; empty while no AIPROD server answers."""
        try:
            return dict(self._http.get("/readyz", timeout=timeout).json()["applications"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return {}

    def _read(self, answer: httpx.Response, *, needed: str) -> dict[str, Any]:
        try:
            record = answer.json()
        except ValueError:
            record = None
        if not isinstance(record, dict) or needed not in record:
            raise AiprodClientError(f"{self.base_url} is no AIPROD server: it answered without {needed!r}", code="not_aiprod")
        return record

    def _send(self, method: str, path: str, *, json: dict[str, Any] | None = None) -> httpx.Response:
        try:
            # Not httpx's encoding, which raises on NaN: the server knows how to refuse it by name.
            body: dict[str, Any] = {} if json is None else {"content": dumps(json), "headers": {"content-type": "application/json"}}
            answer = self._http.request(method, path, **body)
        except httpx.TimeoutException as error:
            raise AiprodClientError(f"{self.base_url} did not answer in time", code="timeout") from error
        except httpx.HTTPError as error:
            raise AiprodClientError(f"{self.base_url} cannot be reached ({error})", code="unreachable") from error
        if answer.is_error:
            raise _error(answer)
        return answer


def _error(answer: httpx.Response) -> AiprodClientError:
    try:
        said = answer.json()["error"]
        return AiprodClientError(said["message"], code=said["code"], param=said.get("param"), status=answer.status_code)
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code} {answer.reason_phrase} and gave no reason"
        return AiprodClientError(message, code="http_error", status=answer.status_code)


def _stage_times(header: str) -> tuple[StageTime, ...]:
    """The entries of a Server-Timing header that name a stage; their durations are milliseconds."""
    return tuple(StageTime(step, stage, float(duration) / 1000) for step, duration, stage in _STAGE_TIME.findall(header))
