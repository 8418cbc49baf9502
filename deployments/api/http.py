"""HTTP request -> understood request -> its plan walked over the family's stages -> the video, with the timing of every step"""

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from aiprod_components.families import make_family
from aiprod_components.pipelines import DEFAULT_PIPELINE
from aiprod_components.stages import stages_of
from deployments.api import errors
from deployments.api.answers import video_answer
from deployments.api.body import read_body
from deployments.api.catalogue import describe_plan, list_models
from deployments.api.wire import Asked, Wire, wire_model, wire_names
from deployments.runner import find_stages, run_plan
from deployments.settings import ApiArgs

# FastAPI's own root spans would cut the trace that begins at Serve's proxy.
api = FastAPI(title="AIPROD", telemetry={"tracing": False}, docs_url="/docs")
errors.install(api)

# The document is made before it is known what is served: it shows one family's defaults.
_SHOWN = wire_model(make_family("miniature"), DEFAULT_PIPELINE).model_json_schema()
_SCHEMA = {**_SHOWN, "additionalProperties": True, "description": "Every family's defaults and every pipeline's fields: GET /v1/models."}
_KINDS = ("multipart/form-data", "application/json")
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {kind: {"schema": _SCHEMA} for kind in _KINDS}}}


# It stands with its routes: decorated in another module, HTTP breaks while calls by handle go on working. And below all that they
# use: Serve pickles the routes as it decorates, with the names that this module has by then.
@serve.ingress(api)
class Ingress:
    """The HTTP face. Holds no weights and no tensors."""

    def __init__(self, args: ApiArgs) -> None:
        self._wire = Wire({family.name: family.make() for family in args.families})
        self._models = list_models(self._wire)
        self._stages: dict[str, dict[str, DeploymentHandle]] = {}

    @api.post("/v1/videos/sync", response_class=Response, openapi_extra=BODY)
    async def make_video(self, request: Request) -> Response:
        """Makes a video and answers the mp4. A client that hangs up cancels the work."""
        started = time.perf_counter()
        asked = await self._understand(request)
        with wire_names():
            sealed = await run_plan(asked.plan, handles=await self._find_stages(asked.family.name))
        return video_answer(asked, sealed, seconds=time.perf_counter() - started)

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
            stages = stages_of(self._wire.families[family])
            self._stages[family] = await asyncio.to_thread(find_stages, family, stages=stages)
        return self._stages[family]
