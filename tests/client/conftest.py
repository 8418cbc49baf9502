"""a server to talk to, and pictures to send"""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.client.stand_in import StandIn, running_stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with running_stand_in() as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()
