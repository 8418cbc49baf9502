"""a small Ray Serve cluster of its own, until standard input ends: two applications whose ingress speaks HTTP and gRPC

It is a program, so that it can run beside the cluster that other tests have in their own process. Prints its two ports as JSON.
"""

import json
import sys
import tempfile
from contextlib import suppress
from typing import Any

import ray
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from ray import serve

from aiprod_client.server import free_port
from aiprod_components.errors import QueueFullError
from deployments.api.grpc import GrpcFace, add_grpc_methods
from tests.deployments.grpc_face.stand_in import StandInService

SERVICER = "deployments.api.proto.aiprod.v1.video_pb2_grpc.add_VideoServiceServicer_to_server"
APPLICATIONS = {"api": "/", "other": "/other"}

RAISED = {"nothing": None, "a bug": ValueError("/secret/path"), "a full queue": QueueFullError("the queue is full", retry_after=9)}

http = FastAPI(telemetry={"tracing": False})


@serve.ingress(http)  # type: ignore[reportUntypedClassDecorator]
@add_grpc_methods
class BothFaces:
    def __init__(self, name: str) -> None:
        self._name = name
        self._service = StandInService()
        self.grpc_face = GrpcFace(self._service, models=self._service.models, health=self._health, local_only=True)

    async def _health(self) -> dict[str, Any]:
        return {"status": "ready", "applications": {self._name: "RUNNING"}}

    @http.get("/videos")
    async def videos(self) -> JSONResponse:
        """Over HTTP: what gRPC made, and how many watch it."""
        statuses = {video_id: video["status"] for video_id, video in self._service.videos.items()}
        return JSONResponse({"name": self._name, "videos": statuses, "watchers": self._service.watchers})

    @http.post("/behaviour")
    async def behave(self, held: bool, raises: str) -> JSONResponse:
        """Whether videos stay in progress, and what operations raise."""
        self._service.held, self._service.raises = held, RAISED[raises]
        return JSONResponse({})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as folder:
        options: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder, "namespace": "serve", "log_to_driver": False}
        ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, **options)
        try:
            _deploy()
            sys.stdin.read()
        finally:
            serve.shutdown()
            ray.shutdown()


def _deploy() -> None:
    ports = {"http": free_port(), "grpc": free_port()}
    with suppress(TimeoutError):  # Serve waits a minute for its proxy and goes on starting it
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": ports["http"]},
            grpc_options={"port": ports["grpc"], "grpc_servicer_functions": [SERVICER]},
        )
    deployment = serve.deployment(name="ingress", ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=20)(BothFaces)
    serve.run_many([serve.RunTarget(deployment.bind(name), name=name, route_prefix=prefix) for name, prefix in APPLICATIONS.items()])
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
