"""what became of each arrival -> a load test's result: counts, latencies of all and of each class, and the rows themselves"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deployments.capacity.traffic import Traffic

Row = Mapping[str, Any]
STATUSES = ("completed", "failed", "cancelled")
SHOWN = (0.5, 0.95, 0.99)


def result_of(traffic: Traffic, rows: Sequence[Row]) -> dict[str, Any]:
    """Each row has class, at, latency and status. Latencies are of completed videos, from when one was due to be asked for."""
    done = [row for row in rows if row["status"] == "completed"]
    last = max((row["at"] + row["latency"] for row in done), default=0.0)
    ordered = sorted(rows, key=lambda row: row["at"])
    return {
        "traffic": traffic.name,
        "seconds": traffic.seconds,
        **_counted(rows),
        "throughput_per_minute": 60 * len(done) / max(last, traffic.seconds),
        "by_class": {each.name: _counted([row for row in rows if row["class"] == each.name]) for each in traffic.classes},
        "rows": [dict(row) for row in ordered],
    }


def latency_at(rows: Sequence[Row], share: float) -> float:
    """Infinite where nothing was completed."""
    seconds = [row["latency"] for row in rows if row["status"] == "completed"]
    return float(np.quantile(seconds, share)) if seconds else float("inf")


def _counted(rows: Sequence[Row]) -> dict[str, Any]:
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    known = counts["completed"] > 0
    latency = {f"p{share * 100:g}": latency_at(rows, share) if known else None for share in SHOWN}
    return {"arrivals": len(rows), **counts, "latency": latency}
