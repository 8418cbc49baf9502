"""In tests, shapes and types are checked at every call of the modules that state them; in production that costs nothing.

`make test` runs two processes side by side: one has all files with tests that need a cluster, the other most of the rest.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

# Before torch is loaded: two processes with as many threads as there are cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Ray's workers stand back for all others by default, which here are the tests beside them.
    os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

CHECKED = ("values", "diffusion", "kernels", "media", "models", "stages", "watermarks")
ROOT = Path(__file__).parents[1]
# How a file says that its tests need a cluster: by a fixture that starts one, or by the mark.
NEEDS_CLUSTER = re.compile(r"\b(graph|cluster): [A-Z]|mark\.cluster\b")

# Before anything imports them: a module that is loaded already stays unchecked.
install_import_hook([f"aiprod_components.{name}" for name in CHECKED], "beartype.beartype")

from tests.graph import graph  # noqa: E402 - every test that needs the cluster shares this one

__all__ = ["graph"]


class BySide(LoadScopeScheduling):
    """No file is divided, and all that need a cluster stay together: there is one at a time beside the shared one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "clusters" if needs_cluster(file) else file


@cache
def needs_cluster(file: str) -> bool:
    return NEEDS_CLUSTER.search((ROOT / file).read_text(encoding="utf-8")) is not None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BySide:
    return BySide(config, log)
