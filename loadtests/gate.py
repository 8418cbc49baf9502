"""a result and what was promised -> which promise was broken, in words

A promise is a limit of `aiprod capacity --slo`, for all requests (`p95=10s,errors=1%`) or for those of one class (`drafts:p95=4s`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.slo import Slo, parse_slo
from loadtests.result import Row, latency_at


@dataclass(frozen=True)
class Promise:
    """Limits, and whose (None: everybody's)."""

    slo: Slo
    class_name: str | None = None

    def faults(self, rows: Sequence[Row]) -> list[str]:
        mine = [row for row in rows if self.class_name in (None, row["class"])]
        latency = {quantile: latency_at(mine, quantile) for quantile in self.slo.latency}
        failed = sum(row["status"] == "failed" for row in mine) / max(len(mine), 1)
        of = "" if self.class_name is None else f"{self.class_name}: "
        return [of + fault for fault in self.slo.faults(latency, errors=failed)]


def read_promises(texts: Iterable[str], *, classes: Iterable[str]) -> list[Promise]:
    """Raises InvalidRequestError for what is no promise, and for a class that the traffic does not have."""
    known = list(classes)
    promises: list[Promise] = []
    for text in texts:
        name, colon, limits = text.rpartition(":")
        if colon and name not in known:
            raise InvalidRequestError(f"slo: the traffic has no class {name!r}; it has {', '.join(known)}", field="slo")
        promises.append(Promise(parse_slo(limits), name if colon else None))
    return promises


def broken(result: Mapping[str, Any], promises: Iterable[Promise], *, due: int) -> list[str]:
    """`due` is how many arrivals there were to be: a run that ended before them has promised nothing of the others."""
    rows = result["rows"]
    missing = [f"only {len(rows)} of {due} requests came to an end"] if len(rows) < due else []
    return missing + [fault for promise in promises for fault in promise.faults(rows)]
