"""any message that the descriptor allows -> an answer that tells something, never an accident"""

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiprod_client.grpc_client import GrpcClient, ask_for
from deployments.api.grpc import RPCS, GrpcFace
from tests.deployments.grpc_face.fuzzing import check, requests_of
from tests.deployments.grpc_face.serving import serving
from tests.deployments.grpc_face.stand_in import StandInService


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    service = StandInService()
    with serving(GrpcFace(service, models=service.models, health=service.health, local_only=True)) as address:
        yield address


@pytest.fixture
def ids(target: str) -> list[str]:
    """A finished video and one that waits."""
    with GrpcClient(target) as client:
        made = [client.create(ask_for("a red ball")).id for _ in range(2)]
        assert len(list(client.watch(made[0]))) == 4
    return made


@pytest.fixture(scope="module")
def channel(target: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target) as channel:
        yield channel


@pytest.mark.parametrize("rpc", [rpc.name for rpc in RPCS])
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_message_is_answered_with_a_reason_or_what_it_asks_for(
    channel: grpc.Channel, ids: list[str], rpc: str, data: st.DataObject
) -> None:
    check(channel, rpc, data.draw(requests_of(rpc, ids=ids)))
