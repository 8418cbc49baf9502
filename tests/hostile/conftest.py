"""Whatever a file does to its reader, nothing of the reader is left."""

from collections.abc import Iterator

import pytest

from tests.media.children import children


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before
