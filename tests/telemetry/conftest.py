"""this process, as one whose spans go to a collector, or nowhere"""

from collections.abc import Iterator

import pytest

from deployments.telemetry import exporting
from deployments.telemetry.exporting import ENDPOINTS, flush
from tests.collector import Collector, collecting, sent_to


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No collector is named."""
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    exporting._made.cache_clear()
    yield
    exporting._made.cache_clear()


@pytest.fixture
def here(nowhere: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, which this process's spans go to."""
    with collecting() as collector:
        for name, value in sent_to(collector).items():
            monkeypatch.setenv(name, value)
        yield collector
        flush()
