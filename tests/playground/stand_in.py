"""a stand-in for the server of the playground: it speaks the HTTP contract and makes no videos, only draws what a prompt names

What is asked is read and planned by the server's own code, so its faults and plans are the real ones; a job then only waits as
long as its pace says, and is drawn by the procedural world's renderer.
"""

import asyncio
import base64
import io
import itertools
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from json import dumps
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

from aiprod_client.server import free_port
from aiprod_components.errors import ConflictError, InvalidRequestError, NotFoundError
from aiprod_components.families import make_family
from aiprod_components.media.encode import encode_mp4, encode_sound
from aiprod_components.miniature.render import render_frames
from aiprod_components.miniature.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, Thing
from aiprod_components.values import Frames, Waveform
from deployments.api import errors
from deployments.api.body import Body, read_body
from deployments.api.catalogue import describe_plan, list_models
from deployments.api.documents import ANALYTICS
from deployments.api.wire import Asked, Wire
from deployments.jobs.analytics import Analytics, Day, FamilyTimes, Spread, StageTimes, Usage
from deployments.playground import mount

FINAL = ("completed", "failed", "cancelled")
FAILING = "fail"  # a prompt that begins so fails
LOOK = 0.02  # seconds between two looks at what an event stream should say


@cache
def the_wire(*, sounds: bool) -> Wire:
    """With `sounds` the miniature looks as if it made some: enough to be asked and planned."""
    family = make_family("miniature")
    return Wire({"miniature": replace(family, grid=replace(family.grid, audio_rate=25.0)) if sounds else family})


@dataclass
class StandInJob:
    """A job, which its task fills up."""

    video: dict[str, Any]
    body: Body
    asked: Asked
    version: int = 0
    preview: str | None = None
    frames: torch.Tensor | None = None
    task: asyncio.Task[None] | None = None

    @property
    def has_pictures(self) -> bool:
        return self.asked.request.has_pictures

    def change(self, **fields: Any) -> None:
        self.video |= fields
        self.version += 1


@dataclass
class StandIn:
    """What the stand-in is told and remembers. `pace` is what a step of 33 frames takes, in seconds; with a `key` it wants that; every
    event stream breaks after `cut_after` events; with `sounds` it makes sounds alone, too; `analytics` it tells instead of its own."""

    pace: float = 0.03
    key: str | None = None
    cut_after: int | None = None
    sounds: bool = False
    analytics: Analytics | None = None
    jobs: dict[str, StandInJob] = field(default_factory=dict)
    posts: dict[str, str] = field(default_factory=dict)
    keys_seen: list[str | None] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None
    counter: Iterator[int] = field(default_factory=itertools.count)

    @property
    def wire(self) -> Wire:
        return the_wire(sounds=self.sounds)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(make_app(self), host="127.0.0.1", port=self.port, log_level="error", timeout_graceful_shutdown=0)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        assert self.server and self.thread
        self.server.should_exit = True
        self.thread.join(timeout=10)

    def find(self, video_id: str) -> StandInJob:
        if video_id not in self.jobs:
            raise NotFoundError(f"there is no video {video_id}; it may have been deleted")
        return self.jobs[video_id]

    async def add(self, body: Body, *, source: str | None = None) -> dict[str, Any]:
        asked = await asyncio.to_thread(self.wire.read, body)
        job = StandInJob(_video(asked, source=source, created=1_790_000_000 + next(self.counter)), body, asked)
        self.jobs[job.video["id"]] = job
        job.task = asyncio.create_task(self._run(job))
        return job.video

    async def _run(self, job: StandInJob) -> None:
        while (ahead := self._ahead(job)) is not None:
            if job.video["queue_position"] != ahead:
                job.change(queue_position=ahead)
            await asyncio.sleep(LOOK)
        job.change(status="in_progress", queue_position=None)
        if job.has_pictures:
            job.frames = await asyncio.to_thread(draw, job.asked)
        total = len(job.asked.plan.steps)
        for number, step in enumerate(job.asked.plan.steps):
            await self._step(job, step, share=(number / total, 1 / total))
            if job.video["prompt"].startswith(FAILING) and number == 1:
                error = {"code": "worker_lost", "message": "the worker was lost three times; try again later"}
                job.change(status="failed", error=error, current=None)
                return
        job.change(status="completed", progress=100, current=None, completed_at=job.video["created_at"] + 5)
        job.change(media_type="video/mp4" if job.has_pictures else "audio/mp4")

    def _ahead(self, job: StandInJob) -> int | None:
        """One job at a time, in order: this one's place among those that wait; None: its turn."""
        waiting = [other for other in self.jobs.values() if other.video["status"] == "queued"]
        busy = any(other.video["status"] == "in_progress" for other in self.jobs.values())
        place = waiting.index(job) + 1
        return place if busy or place > 1 else None

    async def _step(self, job: StandInJob, step: Any, *, share: tuple[float, float]) -> None:
        started, sampling = time.perf_counter(), getattr(step.call, "sampling", None)
        count = len(sampling.sigmas) - 1 if sampling else 1
        for done in range(count):
            current = {"step": step.name, "stage": step.call.stage, "done": done, "total": count}
            job.change(current=current, progress=int(100 * (share[0] + share[1] * done / count)))
            if sampling and job.has_pictures and done % 3 == 0:
                job.preview = preview(job.frames, noise=1 - done / count if step.name == "draft" else 0.1)
            await asyncio.sleep(self.pace * job.video["num_frames"] / 33)
        times = {"queued_seconds": 0.004 + self.pace / 10, "run_seconds": time.perf_counter() - started}
        receipt = {"step": step.name, "stage": step.call.stage, "replica": "a1b2", "cache_hit": False, "attempt": 1, **times}
        job.change(stages=[*job.video["stages"], receipt])

    async def cancel(self, job: StandInJob) -> dict[str, Any]:
        if job.video["status"] in FINAL:
            raise ConflictError(f"the video is {job.video['status']} already")
        assert job.task
        job.task.cancel()
        with suppress(asyncio.CancelledError):
            await job.task
        job.change(status="cancelled", current=None, queue_position=None)
        return job.video


def _video(asked: Asked, *, source: str | None, created: int) -> dict[str, Any]:
    request = asked.request
    return {
        "id": f"video_{secrets.token_hex(16)}", "object": "video", "created_at": created, "completed_at": None, "expires_at": None,
        "model": asked.family.name, "pipeline": request.pipeline, "prompt": request.prompt, "progress": 0,
        "seconds": f"{request.num_frames / request.frame_rate:g}",
        "size": f"{request.width}x{request.height}" if request.has_pictures else None,
        "num_frames": request.num_frames, "fps": request.frame_rate, "seed": request.seed, "status": "queued", "error": None,
        "remixed_from_video_id": source, "priority": 0, "queue_position": None, "current": None, "stages": [],
        "cost": sum(step["cost"] for step in planned(asked)["steps"]), "media_type": None, "frames_sha256": None,
    }  # fmt: skip


def planned(asked: Asked) -> dict[str, Any]:
    """The plan with what each step costs."""
    plan = describe_plan(asked)
    steps = [{**step, "cost": step["work"]["network_calls"] * step["work"]["tokens"] / 1000} for step in plan["steps"]]
    return {**plan, "steps": steps}


def draw(asked: Asked) -> torch.Tensor:
    """The frames (T H W 3) of what the prompt names."""
    request = asked.request
    said = request.prompt.lower()

    def named(words: Any, otherwise: str) -> str:
        return next((word for word in words if word in said), otherwise)

    thing = Thing(named(SHAPES, "ball"), named(COLOURS, "red"), named(SIZES, "big"), named(MOTIONS, "spins"), "slowly", (0.0, 0.0))
    scene = Scene((thing,), named(BACKGROUNDS, "navy" if "navy" in BACKGROUNDS else next(iter(BACKGROUNDS))))
    shape = {"num_frames": request.num_frames, "height": request.height, "width": request.width}
    return render_frames([scene], **shape, frame_rate=request.frame_rate)[0]


def preview(frames: torch.Tensor | None, *, noise: float) -> str:
    assert frames is not None
    picture = frames[len(frames) // 2].float()
    mixed = picture * (1 - noise) + torch.randint_like(picture, 256) * noise
    return f"data:image/webp;base64,{base64.b64encode(_webp(mixed.to(torch.uint8))).decode()}"


def _webp(picture: torch.Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "WEBP")
    return file.getvalue()


def _content(job: StandInJob, variant: str) -> Response:
    if job.video["status"] != "completed":
        raise ConflictError(f"the video is {job.video['status']}; its content is there when it is completed")
    if job.frames is None:
        hum = torch.linspace(0, 440 * 2 * torch.pi * float(job.video["seconds"]), int(48_000 * float(job.video["seconds"]))).sin()
        return Response(encode_sound(Waveform(hum.expand(1, 2, -1), 48_000), container="m4a"), media_type="audio/mp4")
    if variant == "thumbnail":
        return Response(_webp(job.frames[len(job.frames) // 2]), media_type="image/webp")
    return Response(encode_mp4(Frames(job.frames[None], job.video["fps"])), media_type="video/mp4")


async def _events(job: StandInJob, *, cut_after: int | None) -> AsyncIterator[str]:
    version, shown, told = -1, None, 0
    while cut_after is None or told < cut_after:
        if job.preview is not shown and job.video["status"] == "in_progress":
            shown = job.preview
            yield f"event: preview\ndata: {dumps({'image': shown})}\n\n"
        if job.version != version:
            version = job.version
            told += 1
            yield f"event: video\ndata: {dumps(job.video)}\n\n"
            if job.video["status"] in FINAL:
                return
        await asyncio.sleep(LOOK)


def _remade(job: StandInJob, **fields: Any) -> Body:
    """The body of a job with other fields; in a form all values are texts."""
    changed = fields if job.body.is_json else {name: str(value) for name, value in fields.items()}
    return Body({**job.body.fields, **changed}, job.body.files, is_json=job.body.is_json)


def make_app(stand_in: StandIn) -> FastAPI:
    app = FastAPI()
    errors.install(app)
    mount(app)

    @app.middleware("http")
    async def want_key(request: Request, forward: Any) -> Response:
        given = request.headers.get("authorization")
        if request.url.path.startswith("/v1/"):
            stand_in.keys_seen.append(given)
            if stand_in.key is not None and given != f"Bearer {stand_in.key}":
                return errors.problem(401, "no API key, or one that is not known", code="invalid_api_key")
        return await forward(request)

    _add_videos(app, stand_in)
    _add_one_video(app, stand_in)
    _add_the_rest(app, stand_in)
    return app


def _add_videos(app: FastAPI, stand_in: StandIn) -> None:
    @app.post("/v1/videos/sync")
    async def make(request: Request) -> Response:
        job = stand_in.find((await stand_in.add(await read_body(request)))["id"])
        assert job.task
        await job.task
        return await asyncio.to_thread(_content, job, "video")

    @app.post("/v1/videos")
    async def create(request: Request) -> Any:
        key = request.headers.get("idempotency-key", secrets.token_hex(8))
        if key not in stand_in.posts:
            stand_in.posts[key] = (await stand_in.add(await read_body(request)))["id"]
        return stand_in.jobs[stand_in.posts[key]].video

    @app.get("/v1/videos")
    async def page(after: str | None = None, limit: int = 20) -> Any:
        videos = sorted((job.video for job in stand_in.jobs.values()), key=lambda video: -video["created_at"])
        start = next((place + 1 for place, video in enumerate(videos) if video["id"] == after), 0)
        data = videos[start : start + limit]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, **ends, "has_more": start + limit < len(videos)}

    @app.post("/v1/videos/extensions")
    async def extend(request: Request) -> Any:
        fields = (await read_body(request)).fields
        job = stand_in.find(fields["video"]["id"])
        try:
            seconds = float(fields["seconds"])
        except ValueError as error:
            raise InvalidRequestError(f"seconds must be a number, got {fields['seconds']!r}", field="seconds") from error
        longer = job.video["num_frames"] + int(seconds * job.video["fps"]) // 4 * 4
        return await stand_in.add(_remade(job, prompt=fields["prompt"], num_frames=longer), source=job.video["id"])

    @app.post("/v1/videos/{video_id}/remix")
    async def remix(video_id: str, request: Request) -> Any:
        job = stand_in.find(video_id)
        prompt = (await read_body(request)).fields["prompt"]
        return await stand_in.add(_remade(job, prompt=prompt, seed=job.video["seed"]), source=video_id)


def _add_one_video(app: FastAPI, stand_in: StandIn) -> None:
    @app.post("/v1/videos/{video_id}/cancel")
    async def cancel(video_id: str) -> Any:
        return await stand_in.cancel(stand_in.find(video_id))

    @app.get("/v1/videos/{video_id}/events")
    async def events(video_id: str) -> StreamingResponse:
        return StreamingResponse(_events(stand_in.find(video_id), cut_after=stand_in.cut_after), media_type="text/event-stream")

    @app.get("/v1/videos/{video_id}/content")
    async def content(video_id: str, variant: str = "video") -> Response:
        return await asyncio.to_thread(_content, stand_in.find(video_id), variant)

    @app.get("/v1/videos/{video_id}")
    async def retrieve(video_id: str) -> Any:
        return stand_in.find(video_id).video

    @app.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> Any:
        job = stand_in.find(video_id)
        if job.video["status"] not in FINAL:
            await stand_in.cancel(job)
        del stand_in.jobs[video_id]
        return {"id": video_id, "object": "video.deleted", "deleted": True}


def _add_the_rest(app: FastAPI, stand_in: StandIn) -> None:
    @app.post("/v1/plans")
    async def plan(request: Request) -> Any:
        return planned(await asyncio.to_thread(stand_in.wire.read, await read_body(request)))

    @app.get("/v1/models")
    async def models() -> Any:
        return list_models(stand_in.wire)

    @app.get("/v1/analytics")
    async def analytics(days: int) -> Any:
        return ANALYTICS.dump_python(stand_in.analytics or counted(stand_in, days), mode="json")

    @app.get("/readyz")
    async def ready() -> Any:
        return {"status": "ready", "applications": {"miniature": "RUNNING", "api": "RUNNING"}}

    @app.get("/v1/graph")
    async def graph() -> JSONResponse:
        videos = [job.video for job in stand_in.jobs.values()]
        at = [video["current"]["stage"] for video in videos if video["current"]]
        names = ("text_encoder", "vae_encoder", "denoiser", "upsampler", "refiner", "vae_decoder")
        stages = [{"name": name, "replicas": 1, "queued": 0, "running": at.count(name)} for name in names]
        jobs = {status: sum(video["status"] == status for video in videos) for status in ("queued", "in_progress")}
        return JSONResponse({"families": {"miniature": {"status": "RUNNING", "stages": stages}}, "jobs": jobs})


def counted(stand_in: StandIn, days: int) -> Analytics:
    """Its jobs that ended, today all of them, as if each had run its last step alone."""
    today, ended = date(2026, 9, 21), [job.video for job in stand_in.jobs.values() if job.video["status"] in FINAL]
    ends = [sum(video["status"] == status for video in ended) for status in FINAL]
    spread = Spread(len(ended), 0.5, 1.5)
    times = (FamilyTimes("miniature", spread, spread, (StageTimes("denoiser", spread, 0),)),) if ended else ()
    usage = (Usage("local", "miniature", len(ended), 1.5, 0.0, 3.25, None),) if ended else ()
    before = [Day(today - timedelta(days=ago), 0, 0, 0) for ago in range(days - 1, 0, -1)]
    return Analytics(before[0].day, today, None, None, (*before, Day(today, ends[0], ends[1], ends[2])), times, usage, ())


@contextmanager
def running_stand_in(**told: Any) -> Iterator[StandIn]:
    stand_in = StandIn(**told)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.stop()
