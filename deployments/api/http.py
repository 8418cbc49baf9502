"""HTTP request -> understood request -> its plan walked over the family's stages -> the video, with the timing of every step"""

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from aiprod_components.errors import UnavailableError
from aiprod_components.families import make_family
from aiprod_components.stages import STAGES
from deployments.api import errors
from deployments.api.body import read_body
from deployments.api.catalogue import describe_plan, list_models
from deployments.api.wire import Asked, VideoFields, Wire, wire_names
from deployments.envelope import Sealed
from deployments.runner import run_plan
from deployments.settings import ApiArgs

# FastAPI's own root spans would cut the trace that begins at Serve's proxy.
api = FastAPI(title="AIPROD", telemetry={"tracing": False}, docs_url="/docs")
errors.install(api)

_SCHEMA = VideoFields.model_json_schema(ref_template="#/components/schemas/{model}")
_SCHEMA = {**{k: v for k, v in _SCHEMA.items() if k != "$defs"}, "additionalProperties": True, "description": "Further fields: /v1/models."}
_KINDS = ("multipart/form-data", "application/json")
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {kind: {"schema": _SCHEMA} for kind in _KINDS}}}


# It stands with its routes: wrapped in another module, HTTP breaks while calls by handle go on working.
@serve.ingress(api)
class Ingress:
    """The HTTP face. Holds no weights and no tensors."""

    def __init__(self, args: ApiArgs) -> None:
        self._wire = Wire({family.name: make_family(family.name, weights=family.weights) for family in args.families})
        self._models = list_models(self._wire)
        self._stages: dict[str, dict[str, DeploymentHandle]] = {}

    @api.post("/v1/videos/sync", response_class=Response, openapi_extra=BODY)
    async def make_video(self, request: Request) -> Response:
        """Makes a video and answers the mp4. A client that hangs up cancels the work."""
        started = time.perf_counter()
        asked = await self._understand(request)
        with wire_names():
            sealed = await run_plan(asked.plan, handles=await self._find_stages(asked.family.name))
        return _video_response(asked, sealed, seconds=time.perf_counter() - started)

    @api.post("/v1/plans", openapi_extra=BODY)
    async def make_plan(self, request: Request) -> JSONResponse:
        """The request's plan as data, with its work; runs nothing."""
        return JSONResponse(describe_plan(await self._understand(request)))

    @api.get("/v1/models")
    async def models(self) -> JSONResponse:
        return JSONResponse(self._models)

    @api.get("/healthz")
    async def healthz(self) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @api.get("/readyz")
    async def readyz(self) -> JSONResponse:
        """Ready when every application is; one scaled to zero is."""
        applications = (await asyncio.to_thread(serve.status)).applications
        states = dict.fromkeys(self._wire.families, "ABSENT") | {name: app.status.value for name, app in applications.items()}
        ready = set(states.values()) == {ApplicationStatus.RUNNING.value}
        return JSONResponse({"status": "ready" if ready else "starting", "applications": states}, 200 if ready else 503)

    async def _understand(self, request: Request) -> Asked:
        body = await read_body(request)
        return await asyncio.to_thread(self._wire.read, body)  # it may decode a picture

    async def _find_stages(self, family: str) -> dict[str, DeploymentHandle]:
        if family not in self._stages:
            # Not before: the two applications start side by side.
            self._stages[family] = await asyncio.to_thread(_handles, family)
        return self._stages[family]


def _handles(family: str) -> dict[str, DeploymentHandle]:
    try:
        return {stage: serve.get_deployment_handle(stage, app_name=family) for stage in STAGES}
    except RayServeException as error:
        raise UnavailableError(f"model {family} is not running yet; wait until /readyz answers 200") from error


def _video_response(asked: Asked, sealed: Sealed, *, seconds: float) -> Response:
    video = sealed.open()
    headers = {
        "server-timing": _server_timing(sealed, seconds=seconds),
        "x-aiprod-seed": str(asked.request.seed),
        "x-aiprod-pipeline": asked.request.pipeline,
        "x-aiprod-frames-sha256": video.frames_digest,
    }
    return Response(video.data, media_type=video.media_type, headers=headers)


def _server_timing(sealed: Sealed, *, seconds: float) -> str:
    """One entry per step in milliseconds, then how long steps waited for a free replica in all, then the whole request."""
    steps = [f'{r.step};dur={r.run_seconds * 1000:.1f};desc="{r.stage}"' for r in sealed.receipts]
    queue = sum(r.queued_seconds for r in sealed.receipts)
    return ", ".join([*steps, f"queue;dur={queue * 1000:.1f}", f"total;dur={seconds * 1000:.1f}"])
