"""a stand-in for VideoService: it reads requests with the real code, keeps its videos in memory, and makes none"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from aiprod_components.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from aiprod_components.families import make_family
from deployments.api.body import Body
from deployments.api.catalogue import list_models
from deployments.api.wire import Asked, Wire

KEYS = {"Bearer ap_all": ("read", "write"), "Bearer ap_read": ("read",)}
FINAL = ("completed", "failed", "cancelled")
FILE = bytes(range(256)) * 2500  # 640 000 bytes: two whole chunks and a part of one
PREVIEW = b"RIFF, a picture as far as gRPC knows"
STEP = {"step": "draft", "stage": "denoiser", "done": 1, "total": 2}
RECEIPT = {"step": "prompt", "stage": "text_encoder", "replica": "r1", "queued_seconds": 0.25, "run_seconds": 0.5, "cache_hit": True}


@dataclass(frozen=True)
class StandInCreated:
    video: dict[str, Any]
    replayed: bool


@dataclass(frozen=True)
class StandInEvent:
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class StandInContent:
    data: bytes
    media_type: str = "video/mp4"
    etag: str = "tag"

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, 150_000):  # not the size of a chunk, nor a part of it
            yield self.data[at : min(at + 150_000, end)]


@dataclass
class StandInService:
    """`held`: videos stay in progress. `ends_as`: what becomes of them. `raises`: what every operation but `authenticate` raises."""

    needs_keys: bool = False
    held: bool = False
    slow: float = 0.0  # seconds that creating takes
    ends_as: str = "completed"
    raises: Exception | None = None
    file: bytes = FILE
    bodies: list[Body] = field(default_factory=list[Body])
    videos: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    keys: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    watchers: int = 0

    def __post_init__(self) -> None:
        self.wire = _wire()
        self.models = list_models(self.wire)

    async def health(self) -> dict[str, Any]:
        return {"status": "ready", "applications": {"api": "RUNNING"}}

    async def authenticate(self, authorization: str | None, *, scope: str) -> str:
        if not self.needs_keys:
            return "local"
        if authorization not in KEYS:
            raise UnauthenticatedError("an API key is needed")
        if scope not in KEYS[authorization]:
            raise ForbiddenError(f"this key is not for {scope}")
        return "tenant"

    async def understand(self, body: Body, *, caller: str) -> Asked:
        self._fail_if_told()
        self.bodies.append(body)
        return await asyncio.to_thread(self.wire.read, body)

    async def create(self, body: Body, *, caller: str, idempotency_key: str | None = None) -> StandInCreated:
        await asyncio.sleep(self.slow)
        return self._enqueue(await self.understand(body, caller=caller), body, idempotency_key)

    async def remix(self, video_id: str, body: Body, *, caller: str, idempotency_key: str | None = None) -> StandInCreated:
        source = await self.get(video_id, caller=caller)
        asked = await self.understand(Body({"seed": source["seed"]} | body.fields, is_json=True), caller=caller)
        return self._enqueue(asked, body, idempotency_key, remixed_from_video_id=video_id)

    async def edit(self, body: Body, *, caller: str, idempotency_key: str | None = None) -> StandInCreated:
        return await self._from_named(body, caller, idempotency_key)

    async def extend(self, body: Body, *, caller: str, idempotency_key: str | None = None) -> StandInCreated:
        return await self._from_named(body, caller, idempotency_key)

    async def get(self, video_id: str, *, caller: str) -> dict[str, Any]:
        self._fail_if_told()
        if video_id not in self.videos:
            raise NotFoundError(f"there is no video {video_id!r}", field="id")
        return self.videos[video_id]

    async def list(self, *, caller: str, after: str | None, limit: int, order: str) -> dict[str, Any]:
        self._fail_if_told()
        if not 1 <= limit <= 100 or order not in ("asc", "desc"):
            raise InvalidRequestError(f"limit must be 1 to 100, order asc or desc, got {limit} and {order!r}", field="limit")
        listed = list(self.videos.values())[:: 1 if order == "asc" else -1]
        start = next((at + 1 for at, video in enumerate(listed) if video["id"] == after), 0)
        data = listed[start : start + limit]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return {"object": "list", "data": data, **ends, "has_more": len(listed) > start + limit}

    async def cancel(self, video_id: str, *, caller: str) -> dict[str, Any]:
        video = await self.get(video_id, caller=caller)
        if video["status"] in FINAL:
            raise ConflictError(f"video {video_id} is {video['status']}")
        video["status"] = "cancelled"
        return video

    async def delete(self, video_id: str, *, caller: str) -> dict[str, Any]:
        await self.get(video_id, caller=caller)
        del self.videos[video_id]
        return {"id": video_id, "object": "video.deleted", "deleted": True}

    def place(self, caller: str) -> AbstractContextManager[None]:
        return nullcontext()

    def follow(self, video_id: str, *, caller: str) -> AsyncIterator[StandInEvent]:
        return self.watch(video_id, caller=caller)

    async def watch(self, video_id: str, *, caller: str) -> AsyncIterator[StandInEvent]:
        video = await self.get(video_id, caller=caller)
        self.watchers += 1
        try:
            yield StandInEvent("video", dict(video))
            if video["status"] not in FINAL:
                video |= {"status": "in_progress", "progress": 50, "current": STEP, "queue_position": None}
                yield StandInEvent("video", dict(video))
                yield StandInEvent("preview", {"image": f"data:image/webp;base64,{base64.b64encode(PREVIEW).decode()}"})
                while self.held and video["status"] not in FINAL:
                    await asyncio.sleep(0.005)
                self._finish(video)
                yield StandInEvent("video", dict(video))
        finally:
            self.watchers -= 1

    async def content(self, video_id: str, *, caller: str, variant: str) -> StandInContent:
        video = await self.get(video_id, caller=caller)
        if variant not in ("video", "thumbnail"):
            raise InvalidRequestError(f"variant must be video or thumbnail, got {variant!r}", field="variant")
        if video["status"] != "completed":
            raise ConflictError(f"video {video_id} is {video['status']}")
        return StandInContent(self.file) if variant == "video" else StandInContent(b"a picture", "image/webp")

    def _finish(self, video: dict[str, Any]) -> None:
        if video["status"] in FINAL:
            return
        ends = {
            "completed": {"progress": 100, "completed_at": 1790000009, "frames_sha256": "0" * 64, "media_type": "video/mp4"},
            "failed": {"error": {"code": "worker_lost", "message": "its machine is gone"}},
            "cancelled": {},
        }
        video |= {"status": self.ends_as, "current": None, "stages": [{**RECEIPT, "attempt": 1}], **ends[self.ends_as]}

    async def _from_named(self, body: Body, caller: str, key: str | None) -> StandInCreated:
        fields, named = dict(body.fields), body.fields.get("video")
        fields.pop("video", None)
        if "video" in body.files:
            return self._enqueue(await self.understand(Body(fields, is_json=True), caller=caller), body, key)
        if not isinstance(named, dict) or not isinstance(named.get("id"), str):
            raise InvalidRequestError("video must name a video", field="video")
        await self.get(named["id"], caller=caller)
        return self._enqueue(await self.understand(Body(fields, is_json=True), caller=caller), body, key)

    def _enqueue(self, asked: Asked, body: Body, key: str | None, **more: Any) -> StandInCreated:
        content = json.dumps([body.fields, sorted(body.files)], sort_keys=True)
        if key is not None and key in self.keys:
            video_id, before = self.keys[key]
            if before != content:
                raise IdempotencyError(f"idempotency key {key!r} was used for another body")
            return StandInCreated(self.videos[video_id], True)
        video = _queued(asked) | more
        self.videos[video["id"]] = video
        if key is not None:
            self.keys[key] = video["id"], content
        return StandInCreated(video, False)

    def _fail_if_told(self) -> None:
        if self.raises is not None:
            raise self.raises


@cache
def _wire() -> Wire:
    return Wire({"miniature": make_family("miniature")})


def _queued(asked: Asked) -> dict[str, Any]:
    shape = asked.request.video
    return {
        "id": f"video_{secrets.token_hex(16)}",
        "object": "video",
        "created_at": 1790000000,
        "completed_at": None,
        "expires_at": None,
        "model": asked.family.name,
        "pipeline": asked.request.pipeline,
        "prompt": asked.request.prompt,
        "progress": 0,
        "seconds": "2.0625",
        "size": f"{shape.width}x{shape.height}",
        "num_frames": shape.num_frames,
        "fps": shape.frame_rate,
        "seed": asked.request.seed,
        "status": "queued",
        "error": None,
        "remixed_from_video_id": None,
        "priority": 0,
        "queue_position": 3,
        "current": None,
        "stages": [],
        "cost": 123.4,
        "media_type": None,
        "frames_sha256": None,
    }
