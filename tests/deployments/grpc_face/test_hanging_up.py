"""a client that goes away -> what becomes of the video that it asked for"""

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from deployments.api.proto.aiprod.v1.video_pb2 import Video
from deployments.api.proto.aiprod.v1.video_pb2_grpc import VideoServiceStub
from tests.deployments.grpc_face.stand_in import StandInService

BALL = ask_for("a red ball")


def test_who_stops_watching_leaves_the_video_to_go_on(client: GrpcClient, service: StandInService) -> None:
    service.held = True
    video_id = client.create(BALL).id
    events: Any = client.watch(video_id)
    next(events)
    assert service.watchers == 1
    events.close()
    eventually(lambda: service.watchers == 0)
    assert client.get(video_id).status == Video.IN_PROGRESS


def test_who_stops_generating_cancels_the_video(client: GrpcClient, service: StandInService) -> None:
    service.held = True
    events: Any = client.generate(BALL)
    video_id = next(events).video.id
    assert service.videos[video_id]["status"] != "cancelled"
    events.close()
    eventually(lambda: service.videos[video_id]["status"] == "cancelled" and service.watchers == 0)


def test_who_hangs_up_before_the_video_has_an_id_cancels_it_all_the_same(target: str, service: StandInService) -> None:
    service.held, service.slow = True, 0.2
    with grpc.insecure_channel(target) as channel:
        stub: Any = VideoServiceStub(channel)
        call = stub.GenerateVideo(BALL, metadata=[("application", "api")])
        time.sleep(0.1)
        assert service.videos == {}
        call.cancel()
    eventually(lambda: [video["status"] for video in service.videos.values()] == ["cancelled"])


def test_a_deadline_is_as_good_as_hanging_up(target: str, service: StandInService) -> None:
    service.held = True
    with grpc.insecure_channel(target) as channel:
        stub: Any = VideoServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(stub.GenerateVideo(BALL, metadata=[("application", "api")], timeout=0.3))
    eventually(lambda: [video["status"] for video in service.videos.values()] == ["cancelled"])


def test_the_video_of_an_earlier_call_is_not_cancelled(client: GrpcClient, service: StandInService) -> None:
    service.held = True
    video_id = client.create(BALL, idempotency_key="key").id
    events: Any = client.generate(BALL, idempotency_key="key")
    assert next(events).video.id == video_id
    events.close()
    eventually(lambda: service.watchers == 0)
    time.sleep(0.05)
    assert service.videos[video_id]["status"] == "in_progress"


def test_a_video_that_was_refused_needs_no_cancelling(client: GrpcClient, service: StandInService) -> None:
    with pytest.raises(AiprodClientError, match="says nothing"):
        list(client.generate(ask_for(" ")))
    assert service.videos == {}


def test_who_has_seen_the_video_finished_may_leave_without_the_file(client: GrpcClient, service: StandInService) -> None:
    events: Any = client.generate(BALL)
    assert [next(events).WhichOneof("event") for _ in range(5)][-1] == "chunk"
    events.close()
    time.sleep(0.05)
    assert [video["status"] for video in service.videos.values()] == ["completed"]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
