"""a stand-in for the video service, its gRPC face on a port, and a client of it"""

from collections.abc import Iterator

import pytest

from aiprod_client.grpc_client import GrpcClient
from deployments.api.grpc import GrpcFace
from tests.api.conftest import make_desk
from tests.deployments.grpc_face.serving import serving
from tests.deployments.grpc_face.stand_in import StandInService

__all__ = ["client", "make_desk", "service", "target"]  # make_desk, with the real service, is a fixture too


@pytest.fixture
def service() -> StandInService:
    return StandInService()


@pytest.fixture
def target(service: StandInService) -> Iterator[str]:
    with serving(GrpcFace(service, models=service.models, health=service.health, local_only=True)) as address:
        yield address


@pytest.fixture
def client(target: str) -> Iterator[GrpcClient]:
    with GrpcClient(target) as client:
        yield client
