"""a server to talk to, clients of both kinds, and pictures to send"""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.client.either import Connect, connect_async, connect_sync
from tests.client.stand_in import StandIn, running_stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with running_stand_in() as stand_in:
        yield stand_in


@pytest.fixture(params=[connect_sync, connect_async], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes a client that retries at once, of the kind that the test runs with."""
    monkeypatch.delenv("AIPROD_API_KEY", raising=False)
    monkeypatch.delenv("AIPROD_SERVER", raising=False)
    return request.param


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()
