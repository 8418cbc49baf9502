"""In tests, shapes and types are checked at every call of the modules that state them; in production that costs nothing.

`make test` runs two processes side by side. One has all that needs a cluster, the other most of the rest: files are never divided.
"""

import os

# Before torch is loaded: two processes with as many threads as there are cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

CHECKED = ("values", "diffusion", "kernels", "media", "models", "stages", "watermarks")
CLUSTERS = {"graph", "cluster", "scene"}  # fixtures that start one

# Before anything imports them: a module that is loaded already stays unchecked.
install_import_hook([f"aiprod_components.{name}" for name in CHECKED], "beartype.beartype")

from tests.graph import graph  # noqa: E402 - every test that needs the cluster shares this one

__all__ = ["graph"]


def pytest_itemcollected(item: pytest.Item) -> None:
    needs_cluster = CLUSTERS & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("cluster")
    item.add_marker(pytest.mark.xdist_group("clusters" if needs_cluster else str(item.path)))
