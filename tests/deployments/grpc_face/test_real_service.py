"""the gRPC face over the real service, its database and its artifacts; a stand-in for the dispatcher finishes every job at once"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from aiprod_client.settings import VideoSettings
from deployments.api.catalogue import list_models
from deployments.api.grpc import RPCS, GrpcFace, Service
from deployments.api.proto.aiprod.v1.video_pb2 import ExtendVideoRequest
from deployments.jobs.records import Claim, Job
from tests.api.conftest import WIRE, Desk, MakeDesk
from tests.bodies import picture
from tests.deployments.grpc_face.fuzzing import call, check, requests_of
from tests.deployments.grpc_face.serving import serving
from tests.deployments.grpc_face.stand_in import FILE, RECEIPT

STEP = {"percent": 40, "step": "draft", "stage": "denoiser", "done": 12, "total": 30}
BALL = ask_for("a red ball", VideoSettings(num_frames=9, size="64x64", seed=3))


@pytest.fixture
def desk(make_desk: MakeDesk) -> Iterator[Desk]:
    desk = make_desk(keys=True, rate="100000/second")
    with finishing(desk):
        yield desk


@pytest.fixture
def target(desk: Desk) -> Iterator[str]:
    service: Service = desk.service
    with serving(GrpcFace(service, models=list_models(WIRE), health=_health, local_only=False)) as address:
        yield address


@pytest.fixture
def key(desk: Desk) -> str:
    return desk.key("tenant")


@pytest.fixture
def client(target: str, key: str) -> Iterator[GrpcClient]:
    with GrpcClient(target, api_key=key) as client:
        yield client


def test_a_video_is_made_watched_and_downloaded(client: GrpcClient) -> None:
    video = client.create(BALL, idempotency_key="key")
    assert list(client.watch(video.id))[-1].video.progress == 100
    finished = client.get(video.id)
    assert (finished.prompt, finished.seed, finished.size, finished.num_frames) == ("a red ball", 3, "64x64", 9)
    assert finished.frames_sha256 == "0" * 64 and finished.stages[0].stage == RECEIPT["stage"] and finished.cost > 0
    assert client.download(video.id) == FILE and client.download(video.id, variant="thumbnail") == b"thumbnail"
    assert client.create(BALL, idempotency_key="key").id == video.id
    assert video.id in {listed.id for listed in client.videos(page=1)}
    client.delete(video.id)
    with pytest.raises(AiprodClientError) as told:
        client.get(video.id)
    assert (told.value.code, told.value.status) == ("not_found", 404)


def test_a_picture_travels_as_a_file(client: GrpcClient, desk: Desk) -> None:
    video = client.create(ask_for("a red ball", VideoSettings(num_frames=9, size="64x64", image=picture(), image_strength=0.5)))
    job = desk.storage.jobs.get(video.id)
    assert job is not None and job.record["image"]["strength"] == 0.5


def test_generating_sends_the_file(client: GrpcClient) -> None:
    assert b"".join(event.chunk.data for event in client.generate(BALL)) == FILE


def test_another_tenant_s_video_is_not_there(client: GrpcClient, desk: Desk, target: str) -> None:
    video_id = client.create(BALL).id
    with GrpcClient(target, api_key=desk.key("other")) as other, pytest.raises(AiprodClientError, match="there is no video"):
        other.get(video_id)


def test_a_key_that_nobody_made_opens_nothing(target: str) -> None:
    with GrpcClient(target, api_key="ap_made_up") as client, pytest.raises(AiprodClientError) as told:
        client.create(BALL)
    assert (told.value.code, told.value.status) == ("invalid_api_key", 401)


@pytest.mark.parametrize("seconds", [1.7e308, 1e300, 1e9, math.inf, math.nan, 0.0, -1.0])
def test_a_video_cannot_be_extended_by_more_than_there_is(client: GrpcClient, seconds: float) -> None:
    video_id = client.create(BALL).id
    assert list(client.watch(video_id))[-1].video.progress == 100
    with pytest.raises(AiprodClientError) as told:
        client.extend(ExtendVideoRequest(video_id=video_id, prompt="on it rolls", seconds=seconds))
    assert (told.value.status, told.value.param) == (400, "seconds")


@pytest.mark.parametrize("name", ["authorization", "idempotency-key", "request_id"])
def test_any_metadata_is_answered_with_a_reason_or_a_video(target: str, key: str, name: str) -> None:
    more = [] if name == "authorization" else [("authorization", f"Bearer {key}")]
    with grpc.insecure_channel(target) as channel:
        for value in ("", " ", "x" * 4000, "%00", "Bearer", "Bearer  ", "'; DROP TABLE jobs;--"):
            check(channel, "CreateVideo", BALL, metadata=[*more, (name, value)])


@pytest.mark.parametrize("rpc", [rpc.name for rpc in RPCS])
def test_any_message_is_answered_with_a_reason_or_what_it_asks_for(target: str, key: str, client: GrpcClient, rpc: str) -> None:
    ids = [client.create(BALL).id, client.create(BALL).id]
    metadata = [("authorization", f"Bearer {key}")]

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        check(channel, rpc, data.draw(requests_of(rpc, ids=ids)), metadata=metadata)

    with grpc.insecure_channel(target) as channel:
        ask()
        assert call(channel, "Health").code == "OK"


async def _health() -> dict[str, Any]:
    return {"status": "ready", "applications": {"api": "RUNNING"}}


@contextmanager
def finishing(desk: Desk) -> Iterator[None]:
    ended = threading.Event()

    def finish_everything() -> None:
        while not ended.wait(0.01):
            while (job := desk.storage.jobs.claim("tester", 60, list(WIRE.families))) is not None:
                _finish(desk, job)

    dispatcher = threading.Thread(target=finish_everything)
    dispatcher.start()
    try:
        yield
    finally:
        ended.set()
        dispatcher.join()


def _finish(desk: Desk, job: Job) -> None:
    desk.storage.jobs.report(Claim.of(job), progress=STEP)
    prefix, kinds = f"videos/{job.id}/{job.attempt}", {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}
    for name in kinds:
        desk.storage.artifacts.put(f"{prefix}/{name}", FILE if name == "video" else name.encode())
    files = {name: [kind, len(FILE)] for name, kind in kinds.items()}
    output = {"prefix": prefix, "files": files, "frames_digest": "0" * 64}
    desk.storage.jobs.finish(Claim.of(job), output, [{**RECEIPT, "attempt": job.attempt}], 3600)
