"""what the caller wants of the server -> a flow of effects: every call of the client, said once"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiprod_client import routes
from aiprod_client.answers import not_aiprod, read_page, read_record, read_video
from aiprod_client.downloads import Target, download
from aiprod_client.effects import Emit, Flow, OnLeaving, Request, Tell, ask
from aiprod_client.errors import AiprodClientError, NoAnswerError, VideoCancelledError, VideoFailedError, VideoTimeoutError
from aiprod_client.patience import NO_RETRIES, Deadline, Retries
from aiprod_client.sending import send
from aiprod_client.settings import VideoSettings
from aiprod_client.video import (
    CANCELLED,
    FAILED,
    Content,
    Event,
    GeneratedVideo,
    JobError,
    StageTime,
    VideoEvent,
    VideoJob,
    VideoPage,
)
from aiprod_client.watching import follow

RUNNING, DEPLOY_FAILED = "RUNNING", "DEPLOY_FAILED"  # an application's states that decide something
PARTING_SECONDS = 10.0  # how long whoever leaves waits for a last answer; a cancellation is answered when the work has ended

log = logging.getLogger("aiprod_client")

OnChange = Callable[[VideoJob], object]
Models = list[dict[str, Any]]


class Calls:
    """Each raises AiprodClientError when the server says no or nothing."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def create(
        self,
        prompt: str,
        settings: VideoSettings = VideoSettings(),
        *,
        webhook_url: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[VideoJob]:
        """Asks for a video and does not wait for it. The same `idempotency_key` is the same video (absent: a new one)."""
        body = settings.body(prompt) | _given(webhook_url, priority)
        return (yield from self._video(routes.new_video(body, key=idempotency_key)))

    def remix(
        self,
        video: str | VideoJob,
        prompt: str,
        *,
        webhook_url: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[VideoJob]:
        """Asks for a video with the settings and the seed of another one, and a prompt of its own."""
        body = {"prompt": prompt, **_given(webhook_url, priority)}
        return (yield from self._video(routes.new_video(body, path=f"/{routes.id_of(video)}/remix", key=idempotency_key)))

    def edit(
        self,
        prompt: str,
        video: str | VideoJob | bytes,
        settings: VideoSettings = VideoSettings(),
        *,
        webhook_url: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[VideoJob]:
        """Asks for a video that follows another one: the server's, or the bytes of any."""
        body = settings.body(prompt) | _given(webhook_url, priority)
        if isinstance(video, bytes):
            return (yield from self._video(routes.edit(body, video, key=idempotency_key)))
        named = {**body, "video": {"id": routes.id_of(video)}}
        return (yield from self._video(routes.new_video(named, path="/edits", key=idempotency_key)))

    def extend(
        self,
        video: str | VideoJob,
        prompt: str,
        seconds: float,
        *,
        webhook_url: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[VideoJob]:
        """Asks for a video that begins as another one and goes on for some seconds more."""
        body = {"prompt": prompt, "seconds": str(seconds), "video": {"id": routes.id_of(video)}, **_given(webhook_url, priority)}
        return (yield from self._video(routes.new_video(body, path="/extensions", key=idempotency_key)))

    def retrieve(self, video: str | VideoJob) -> Flow[VideoJob]:
        """The video as it is now."""
        return (yield from self._video(routes.retrieve(video)))

    def cancel(self, video: str | VideoJob) -> Flow[VideoJob]:
        return (yield from self._video(routes.cancel(video)))

    def delete(self, video: str | VideoJob) -> Flow[None]:
        """Removes the video and its files; one that is being made is cancelled first."""
        yield from send(routes.delete(video), retries=self._retries)

    def list(self, *, limit: int = 20, after: str | None = None, order: str = "desc") -> Flow[VideoPage]:
        """A page of the videos: at most `limit` of those `after` one, newest first or (`asc`) last."""
        return read_page((yield from send(routes.listing(limit=limit, after=after, order=order), retries=self._retries)))

    def iterate(self, *, limit: int = 100, order: str = "desc") -> Flow[None]:
        """Every video, page by page of `limit`, newest first or (`asc`) last."""
        page = VideoPage((), has_more=True)
        while page.has_more:
            page = yield from self.list(limit=limit, after=page.last_id, order=order)
            for job in page.data:
                yield Emit(job)

    def stream(self, video: str | VideoJob) -> Flow[None]:
        """Every event until the video is finished, the connection breaking or not: VideoEvent and PreviewEvent."""

        def emit(event: Event) -> Flow[None]:
            yield Emit(event)

        yield from follow(video, tell=emit, retries=self._retries)

    def wait(self, video: str | VideoJob, *, timeout: float | None = None, on_change: OnChange | None = None) -> Flow[VideoJob]:
        """The video when it is complete; `on_change` is told of each state on the way.

        Raises VideoFailedError, VideoCancelledError, and VideoTimeoutError after `timeout` seconds.
        """

        def tell(event: Event) -> Flow[None]:
            if isinstance(event, VideoEvent) and on_change is not None:
                yield Tell(on_change, event.job)

        job = yield from follow(video, tell=tell, retries=self._retries, deadline=Deadline.within(timeout))
        if job.status == FAILED:
            error = job.error or JobError("unknown", f"{job.id} failed, and the server does not say why")
            raise VideoFailedError(error.message, code=error.code, job=job)
        if job.status == CANCELLED:
            raise VideoCancelledError(f"{job.id} was cancelled", code="cancelled", job=job)
        return job

    def download(self, video: str | VideoJob, target: Target | None = None, *, variant: str = "video") -> Flow[Content]:
        """The finished file, or its `thumbnail`, `spritesheet` or `preview`: into memory, an open file, or a path once it is whole."""
        return (yield from download(routes.content(video, variant=variant), target, retries=self._retries))

    def generate(
        self,
        prompt: str,
        settings: VideoSettings = VideoSettings(),
        *,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Flow[GeneratedVideo]:
        """Asks for a video, waits for it and fetches it. Whoever leaves early (Ctrl-C, a cancelled task, `timeout`) cancels it."""
        started = time.perf_counter()
        asked = routes.new_video(settings.body(prompt), key=None)
        yield OnLeaving(self._call_off(asked))
        job = yield from self._video(asked)
        yield OnLeaving(self._call_off(routes.cancel(job)))
        try:
            job = yield from self.wait(job, timeout=timeout, on_change=on_change)
        except VideoTimeoutError:
            yield from self._call_off(routes.cancel(job))
            raise
        yield OnLeaving(None)
        content = yield from self.download(job)
        return _generated(job, content, seconds=time.perf_counter() - started)

    def plan(self, prompt: str, settings: VideoSettings = VideoSettings()) -> Flow[dict[str, Any]]:
        """The steps of the request with the work of each; runs nothing."""
        return read_record((yield from send(routes.plan(settings.body(prompt)), retries=self._retries)), needed="steps")

    def models(self) -> Flow[Models]:
        """The served families with their pipelines, limits and sizes."""
        return read_record((yield from send(routes.MODELS, retries=self._retries)), needed="data")["data"]

    def ready(self, *, timeout: float = 5.0) -> Flow[bool]:
        """Whether the server answers and all its applications are up."""
        return set((yield from self.applications(timeout=timeout)).values()) == {RUNNING}

    def applications(self, *, timeout: float = 5.0) -> Flow[dict[str, str]]:
        """The state of each application in Ray Serve's words; empty while no AIPROD server answers."""
        try:
            answer = yield from ask(replace(routes.READY, timeout=timeout))
            return dict(answer.json()["applications"])
        except (NoAnswerError, ValueError, KeyError, TypeError):
            return {}

    def _video(self, request: Request) -> Flow[VideoJob]:
        return read_video((yield from send(request, retries=self._retries)))

    def _call_off(self, asked: Request) -> Flow[None]:
        """Cancels what a request made or names. A creation is asked again first, under its key: its answer may be lost on the way."""
        try:
            answer = yield from send(replace(asked, timeout=PARTING_SECONDS), retries=NO_RETRIES)
            if "idempotency-key" in asked.headers:
                cancel = routes.cancel(read_video(answer))
                yield from send(replace(cancel, timeout=PARTING_SECONDS), retries=NO_RETRIES)
        except AiprodClientError as error:
            log.warning("the video could not be cancelled: %s", error)


def _given(webhook_url: str | None, priority: int | None) -> dict[str, Any]:
    """Of what every creation takes, what is said."""
    said = {"webhook_url": webhook_url, "priority": priority}
    return {name: value for name, value in said.items() if value is not None}


def _generated(job: VideoJob, content: Content, *, seconds: float) -> GeneratedVideo:
    if job.seed is None or job.pipeline is None or job.frames_sha256 is None:
        raise not_aiprod(f"{job.id} is complete, and the server tells neither its seed nor its pipeline nor the hash of its frames")
    timings = tuple(StageTime(receipt.step, receipt.stage, receipt.run_seconds) for receipt in job.stages)
    media_type = job.media_type or content.media_type
    return GeneratedVideo(content.data, job.seed, job.pipeline, job.frames_sha256, seconds, timings, media_type, job.id)
