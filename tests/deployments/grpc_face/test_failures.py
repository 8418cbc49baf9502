"""what goes wrong -> a status and a problem document, and nothing else"""

import json
from typing import Any

import grpc
import pytest
from ray.serve.exceptions import BackPressureError

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from aiprod_components import errors as tree
from aiprod_components.errors import AiprodError, InvalidRequestError
from deployments.api.errors import status_of
from deployments.api.grpc import MOST_DETAILS, RPCS, GrpcFace, grpc_status_of, is_local
from deployments.api.proto.aiprod.v1.video_pb2 import CreateVideoRequest, Video
from tests.deployments.grpc_face.fuzzing import Answer, call
from tests.deployments.grpc_face.serving import serving
from tests.deployments.grpc_face.stand_in import StandInService

TOLD: dict[type[AiprodError], str] = {
    tree.InvalidRequestError: "INVALID_ARGUMENT",
    tree.InvalidMediaError: "INVALID_ARGUMENT",
    tree.NumericalError: "INVALID_ARGUMENT",
    tree.UnsatisfiableRangeError: "OUT_OF_RANGE",
    tree.UnknownModelError: "NOT_FOUND",
    tree.NotFoundError: "NOT_FOUND",
    tree.UnauthenticatedError: "UNAUTHENTICATED",
    tree.ForbiddenError: "PERMISSION_DENIED",
    tree.ConflictError: "FAILED_PRECONDITION",
    tree.IdempotencyError: "FAILED_PRECONDITION",
    tree.BusyError: "RESOURCE_EXHAUSTED",
    tree.RateLimitedError: "RESOURCE_EXHAUSTED",
    tree.QueueFullError: "RESOURCE_EXHAUSTED",
    tree.QuotaError: "RESOURCE_EXHAUSTED",
    tree.UnavailableError: "UNAVAILABLE",
    tree.CancelledError: "CANCELLED",
    tree.VideoFailedError: "ABORTED",
}
AS_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    416: grpc.StatusCode.OUT_OF_RANGE,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
WRITING = {"CreateVideo", "GenerateVideo", "RemixVideo", "EditVideo", "ExtendVideo", "CancelVideo", "DeleteVideo"}
ALL_RPCS = [rpc.name for rpc in RPCS]


@pytest.mark.parametrize("rpc", ["GetVideo", "WatchVideo"])
@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_each_kind_of_error_has_its_status_and_tells_what_http_tells(
    service: StandInService, target: str, kind: type[AiprodError], rpc: str
) -> None:
    service.raises = kind("the reason", field="seed")
    answer = failed(target, rpc)
    assert answer.code == TOLD[kind]
    document = json.loads(answer.details)
    assert document["detail"] == document["error"]["message"] == "the reason"
    assert (document["error"]["code"], document["error"]["param"], document["status"]) == (kind.code, "seed", status_of(kind("x")))


def test_every_error_of_the_tree_means_the_same_over_http() -> None:
    def below(kind: type[AiprodError]) -> set[type[AiprodError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    kinds = below(AiprodError) - {tree.VideoFailedError}  # which HTTP has no call for
    assert {kind for kind in kinds if grpc_status_of(kind("x")) is not AS_HTTP[status_of(kind("x"))]} == set()
    assert kinds >= TOLD.keys() - {tree.VideoFailedError}


def test_a_full_stage_is_exhausted(service: StandInService, target: str) -> None:
    service.raises = BackPressureError(9, 8)
    answer = failed(target, "GetVideo")
    document = json.loads(answer.details)
    assert answer.code == "RESOURCE_EXHAUSTED" and document["error"]["code"] == "queue_full" and document["retry_after"] == 5


def test_who_is_busy_says_when_to_come_again(service: StandInService, target: str) -> None:
    service.raises = tree.RateLimitedError("too often", retry_after=17)
    assert json.loads(failed(target, "GetVideo").details)["retry_after"] == 17


class _NotToBePickledError(Exception):
    def __init__(self, path: str, number: int) -> None:
        super().__init__(f"{path} {number}")


UNFORESEEN = [ValueError("/secret/path"), tree.CheckpointError("/secret/path"), _NotToBePickledError("/secret/path", 3)]


@pytest.mark.parametrize("rpc", ["GetVideo", "WatchVideo", "GenerateVideo"])
@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
def test_what_nobody_foresaw_is_told_to_the_log_alone(
    service: StandInService, target: str, error: Exception, rpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    service.raises = error
    answer = failed(target, rpc, CreateVideoRequest(prompt="x") if rpc == "GenerateVideo" else None)
    assert answer.code == "INTERNAL" and json.loads(answer.details)["error"] == {
        "message": "the server failed on this request; its log says why under this request's id",
        "type": "server_error",
        "param": None,
        "code": "internal",
    }
    assert "secret" not in answer.details and "secret" in caplog.text and f"{rpc} failed" in caplog.text


@pytest.mark.parametrize("character", ["a", "%", "é", "😀", '"', "\n", "\0"])
def test_a_long_reason_is_cut_so_that_the_document_stays_one(service: StandInService, target: str, character: str) -> None:
    service.raises = InvalidRequestError(character * 20_000, field=character * 5_000)
    answer = failed(target, "GetVideo")
    on_the_wire = len(answer.details) + 2 * answer.details.count("%")
    assert answer.code == "INVALID_ARGUMENT" and on_the_wire <= MOST_DETAILS and answer.details.isascii()
    assert json.loads(answer.details)["detail"].startswith(character * 20)


@pytest.mark.parametrize("rpc", ALL_RPCS)
def test_without_a_key_only_health_is_told(service: StandInService, target: str, rpc: str) -> None:
    service.needs_keys = True
    assert failed(target, rpc).code == ("OK" if rpc == "Health" else "UNAUTHENTICATED")
    assert failed(target, rpc, key="ap_wrong").code == ("OK" if rpc == "Health" else "UNAUTHENTICATED")


@pytest.mark.parametrize("rpc", ALL_RPCS)
def test_a_key_for_reading_changes_nothing(service: StandInService, target: str, rpc: str) -> None:
    service.needs_keys = True
    assert (failed(target, rpc, key="ap_read").code == "PERMISSION_DENIED") == (rpc in WRITING)
    assert failed(target, rpc, key="ap_all").code not in ("PERMISSION_DENIED", "UNAUTHENTICATED")


def test_a_client_shows_its_key(service: StandInService, target: str) -> None:
    service.needs_keys = True
    with GrpcClient(target, api_key="ap_all") as client:
        assert client.create(ask_for("a red ball")).id in service.videos


PEERS = {
    "ipv4:127.0.0.1:5000": True,
    "ipv4:127.1.2.3:5000": True,
    "ipv6:%5B::1%5D:5000": True,
    "ipv6:[::1]:5000": True,
    "ipv6:%5B::ffff:127.0.0.1%5D:5000": True,
    "unix:/tmp/socket": True,
    "ipv4:10.0.0.7:5000": False,
    "ipv4:0.0.0.0:5000": False,
    "ipv6:%5B2001:db8::1%5D:5000": False,
    "ipv6:%5B::ffff:10.0.0.7%5D:5000": False,
    "ipv4:localhost.example.com:5000": False,
    "": False,
}


@pytest.mark.parametrize("peer", PEERS)
def test_a_client_is_local_when_its_address_is(peer: str) -> None:
    assert is_local(peer) == PEERS[peer]


@pytest.mark.parametrize("local_only", [True, False])
def test_without_keys_another_machine_is_not_answered(service: StandInService, monkeypatch: pytest.MonkeyPatch, local_only: bool) -> None:
    monkeypatch.setattr("ray.serve.grpc_util.RayServegRPCContext.peer", lambda _: "ipv4:10.0.0.7:5000")
    with serving(GrpcFace(service, models=service.models, health=service.health, local_only=local_only)) as target:
        codes = {rpc: failed(target, rpc).code for rpc in ALL_RPCS}
        assert {rpc for rpc, code in codes.items() if code == "UNAUTHENTICATED"} == (set(ALL_RPCS) - {"Health"} if local_only else set())


def test_a_generated_video_that_fails_ends_the_call_as_aborted(client: GrpcClient, service: StandInService) -> None:
    service.ends_as = "failed"
    events: list[Any] = []
    with pytest.raises(AiprodClientError, match=r"failed \(worker_lost\): its machine is gone") as told:
        events.extend(client.generate(ask_for("a red ball")))
    assert told.value.code == "video_failed" and grpc_code(told.value) == grpc.StatusCode.ABORTED


def test_the_last_event_of_a_video_that_failed_says_why(client: GrpcClient, service: StandInService) -> None:
    service.ends_as = "failed"
    last = list(client.watch(client.create(ask_for("a red ball")).id))[-1].video
    assert last.status == Video.FAILED and (last.error.code, last.error.message) == ("worker_lost", "its machine is gone")


def test_a_generated_video_that_somebody_cancels_ends_the_call_as_cancelled(client: GrpcClient, service: StandInService) -> None:
    service.ends_as = "cancelled"
    with pytest.raises(AiprodClientError, match="was cancelled") as told:
        list(client.generate(ask_for("a red ball")))
    assert grpc_code(told.value) == grpc.StatusCode.CANCELLED


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    with GrpcClient("127.0.0.1:1") as client, pytest.raises(AiprodClientError, match="cannot be reached") as told:
        client.health()
    assert told.value.code == "unreachable" and told.value.status is None


def grpc_code(error: AiprodClientError) -> grpc.StatusCode:
    cause: Any = error.__cause__
    return cause.code()


def failed(target: str, rpc: str, message: Any = None, *, key: str | None = None) -> Answer:
    metadata = [("authorization", f"Bearer {key}")] if key else []
    with grpc.insecure_channel(target) as channel:
        return call(channel, rpc, message, metadata=metadata)
