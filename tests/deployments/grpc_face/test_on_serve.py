"""the gRPC face on Ray Serve itself: its proxy, two applications, HTTP beside it"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from deployments.api.grpc import RPCS
from deployments.api.proto.aiprod.v1.video_pb2 import DownloadVideoRequest, Video
from tests.deployments.grpc_face.cluster import APPLICATIONS
from tests.deployments.grpc_face.fuzzing import call
from tests.deployments.grpc_face.stand_in import FILE
from tests.graph import ENVIRONMENT, PATIENCE, ROOT

BALL = ask_for("a red ball")

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@dataclass(frozen=True)
class Served:
    target: str
    http: httpx.Client

    def client(self, *, application: str = "api") -> GrpcClient:
        return GrpcClient(self.target, application=application)

    def behave(self, *, held: bool = False, raises: str = "nothing") -> None:
        assert self.http.post("/behaviour", params={"held": held, "raises": raises}).status_code == 200

    def answers(self) -> bool:
        """Whether both applications are there, over HTTP and gRPC."""
        with suppress(httpx.TransportError, ValueError, AiprodClientError):
            for name, prefix in APPLICATIONS.items():
                with self.client(application=name) as client:
                    client.health()
                self.seen(prefix=prefix.rstrip("/"))
            return True
        return False

    def seen(self, *, prefix: str = "") -> dict[str, Any]:
        """What the deployment says of itself over HTTP."""
        return self.http.get(f"{prefix}/videos").json()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Served]:
    program = [sys.executable, "-m", "tests.deployments.grpc_face.cluster"]
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(program, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            ports = json.loads(process.stdout.readline())
            with httpx.Client(base_url=f"http://127.0.0.1:{ports['http']}", trust_env=False, timeout=30) as http:
                served = Served(f"127.0.0.1:{ports['grpc']}", http)
                eventually(served.answers, patience=PATIENCE)
                yield served
        finally:
            process.stdin.close()  # it shuts its cluster down
            process.wait(60)


@pytest.fixture
def served(cluster: Served) -> Iterator[Served]:
    cluster.behave()
    yield cluster
    cluster.behave()


def test_http_and_grpc_reach_one_deployment(served: Served) -> None:
    with served.client() as client:
        video = client.create(BALL, idempotency_key="key")
        assert served.seen()["videos"][video.id] == "queued" and served.seen(prefix="/other")["videos"] == {}
        assert [event.WhichOneof("event") for event in client.watch(video.id)] == ["video", "video", "preview", "video"]
        assert served.seen()["videos"][video.id] == "completed"
        assert client.create(BALL, idempotency_key="key").id == video.id


def test_files_come_in_chunks(served: Served) -> None:
    with served.client() as client:
        events = list(client.generate(BALL))
        assert b"".join(event.chunk.data for event in events) == FILE
        video_id = events[0].video.id
        assert [len(chunk.data) for chunk in client.chunks(DownloadVideoRequest(id=video_id))] == [262144, 262144, 115712]


def test_the_metadata_names_the_application(served: Served) -> None:
    for name in APPLICATIONS:
        with served.client(application=name) as client:
            assert dict(client.health().applications) == {name: "RUNNING"}
    with served.client(application="none") as client, pytest.raises(AiprodClientError, match="'none' not found") as told:
        client.health()
    assert told.value.code == "not_found"


@pytest.mark.parametrize(
    ("raises", "code", "said"),
    [("a full queue", "RESOURCE_EXHAUSTED", "queue_full"), ("a bug", "INTERNAL", "internal")],
)
@pytest.mark.parametrize("rpc", ["GetVideo", "WatchVideo"])
def test_an_error_is_a_status_and_a_document(served: Served, rpc: str, raises: str, code: str, said: str) -> None:
    served.behave(raises=raises)
    with grpc.insecure_channel(served.target) as channel:
        answer = call(channel, rpc, metadata=[("request_id", "mine")])
    document = json.loads(answer.details)
    assert (answer.code, document["error"]["code"], document["request_id"]) == (code, said, "mine")
    assert "secret" not in answer.details and "Traceback" not in answer.details


def test_who_stops_generating_cancels_the_video(served: Served) -> None:
    served.behave(held=True)
    with served.client() as client:
        events: Any = client.generate(BALL)
        video_id = next(events).video.id
        assert served.seen()["videos"][video_id] != "cancelled"
        events.close()
        eventually(lambda: served.seen()["videos"][video_id] == "cancelled" and served.seen()["watchers"] == 0)


def test_who_stops_watching_leaves_the_video_to_go_on(served: Served) -> None:
    served.behave(held=True)
    with served.client() as client:
        video = client.create(BALL)
        events: Any = client.watch(video.id)
        assert [next(events).WhichOneof("event") for _ in range(3)] == ["video", "video", "preview"] and served.seen()["watchers"] == 1
        events.close()
        eventually(lambda: served.seen()["watchers"] == 0)
        assert client.get(video.id).status == Video.IN_PROGRESS


def test_reflection_shows_the_service(served: Served) -> None:
    with grpc.insecure_channel(served.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "aiprod.v1.VideoService" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("aiprod.v1.VideoService")
        assert [method.name for method in service.methods] == [rpc.name for rpc in RPCS]


def eventually(holds: Callable[[], bool], *, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
