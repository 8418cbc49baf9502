"""work -> seconds; this machine, these versions, this commit -> what stands beside every figure"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def circumstances(*packages: str) -> dict[str, Any]:
    """When, on what and of which code something is measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "hardware": {"cpu": _cpu_model(), "cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0))},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def medians(*works: Callable[[], Any], repeats: int, pause: float = 0.0) -> list[tuple[float, Any]]:
    """For each of the works, done in turns, each after a pause: the median time without the first round, and the last result."""
    rounds = [[_timed(work, pause=pause) for work in works] for _ in range(1 + repeats)]
    return [(statistics.median(seconds for seconds, _ in runs[1:]), runs[-1][1]) for runs in zip(*rounds, strict=True)]


def _timed(work: Callable[[], Any], *, pause: float) -> tuple[float, Any]:
    time.sleep(pause)
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
