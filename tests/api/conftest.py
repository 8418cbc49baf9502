"""the HTTP face over a real database and a real folder, without a cluster: whoever tests plays the dispatcher"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from aiprod_components.families import make_family
from deployments.api.http import Surroundings, make_app
from deployments.api.service import Dispatchers, VideoService, make_service
from deployments.api.wire import Wire
from deployments.jobs.records import Claim, Job
from deployments.settings import ApiArgs
from deployments.storage import Storage, open_storage
from deployments.telemetry.exposition import page

FAMILY = make_family("miniature")
WIRE = Wire({FAMILY.name: FAMILY})
SOUNDING = replace(FAMILY, name="sounding", grid=replace(FAMILY.grid, audio_rate=25.0))  # as if it made sound: enough for a plan
FILES = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}


@dataclass
class Desk:
    """An API, its storage, and what it told the dispatcher."""

    app: FastAPI
    service: VideoService
    storage: Storage
    cancelled: list[str] = field(default_factory=list)
    woken: int = 0

    def client(self, key: str | None = None) -> TestClient:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return TestClient(
            self.app, raise_server_exceptions=False, headers=headers, client=("127.0.0.1", 50_000), base_url="http://127.0.0.1"
        )

    def key(self, tenant: str, *scopes: str) -> str:
        secret, _ = self.storage.keys.create(tenant, "test", scopes or ("read", "write"), None)
        return secret

    def claim(self) -> Job:
        """The next job, as a dispatcher would take it; a stage has begun with it."""
        job = self.storage.jobs.claim("tester", 60, [FAMILY.name, SOUNDING.name])
        assert job is not None
        assert self.storage.jobs.report(Claim.of(job), progress={"percent": 1, "step": "draft", "stage": "denoiser", "done": 1, "total": 2})
        return job

    def finish(self, job: Job, content: bytes = b"an mp4, so to speak", kinds: Mapping[str, str] = FILES) -> None:
        prefix = f"videos/{job.id}/{job.attempt}"
        for name in kinds:
            self.storage.artifacts.put(f"{prefix}/{name}", content if name == "video" else name.encode())
        files = {name: [kind, len(content)] for name, kind in kinds.items()}
        output = {"prefix": prefix, "files": files, "frames_digest": "0" * 64}
        assert self.storage.jobs.finish(Claim.of(job), output, [], 3600)


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> MakeDesk:
    def make(wire: Wire = WIRE, **settings: Any) -> Desk:
        args = ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path), **settings})
        storage = open_storage(args)

        async def wake() -> None:
            desk.woken += 1

        async def cancel(job_id: str) -> None:
            desk.cancelled.append(job_id)

        async def applications() -> dict[str, str]:
            return {"miniature": "RUNNING", "api": "RUNNING"}

        async def unplaced() -> dict[str, str]:
            return {}

        async def graph() -> dict[str, Any]:
            return {"miniature": {"status": "RUNNING", "stages": []}}

        async def metrics() -> bytes:
            return page(storage.stock.take(), args=args, applications=await applications(), graph=await graph(), tallies=[])

        service = make_service(args, wire, storage, Dispatchers(wake, cancel))
        desk = Desk(make_app(service, wire, Surroundings(applications, unplaced, graph, metrics, keys=args.keys)), service, storage)
        return desk

    return make


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk()
