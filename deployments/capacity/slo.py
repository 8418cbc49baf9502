"""`p95=60s,p50=30s,errors=1%` -> limits -> what of a run is beyond them"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiprod_components.errors import InvalidRequestError

UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,2})?)")
AMOUNT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z%]*)")
SYNTAX = "say p95=60s (ms, s, min, h) and errors=0.01 or errors=1%, with commas between"


@dataclass(frozen=True)
class Slo:
    """What is promised: a latency in seconds by quantile (0.95), and the share of videos that may fail (None: nothing is said of it)."""

    latency: Mapping[float, float]
    errors: float | None = None

    def faults(self, latency: Mapping[float, float], *, errors: float = 0.0) -> list[str]:
        """What is beyond the limits, in words; `latency` has each quantile that is limited."""
        late = [
            f"p{quantile * 100:g} is {latency[quantile]:.3g} s, above {limit:g} s"
            for quantile, limit in self.latency.items()
            if not latency[quantile] <= limit
        ]
        if self.errors is not None and errors > self.errors:
            late.append(f"errors are {errors:.2%}, above {self.errors:.2%}")
        return late

    def __str__(self) -> str:
        said = [f"p{quantile * 100:g}={limit:g}s" for quantile, limit in self.latency.items()]
        return ",".join([*said, *([] if self.errors is None else [f"errors={self.errors:g}"])])


def parse_slo(text: str) -> Slo:
    """Raises InvalidRequestError for what is no promise."""
    latency: dict[float, float] = {}
    errors: float | None = None
    for part in text.split(","):
        name, _, amount = (word.strip() for word in part.partition("="))
        if name == "errors":
            errors = _share(amount)
        elif match := QUANTILE.fullmatch(name):
            latency[_quantile(match)] = _seconds(amount, name=name)
        else:
            raise InvalidRequestError(f"slo: {part.strip()!r} is no promise; {SYNTAX}", field="slo")
    return Slo(latency, errors)


def _quantile(match: re.Match[str]) -> float:
    return round(float(match[1]) / 100, 6)


def _seconds(amount: str, *, name: str) -> float:
    match = AMOUNT.fullmatch(amount)
    if match is None or match[2] not in UNITS or float(match[1]) <= 0:
        raise InvalidRequestError(f"slo: {name} must be a time above 0, got {amount!r}; {SYNTAX}", field="slo")
    return float(match[1]) * UNITS[match[2]]


def _share(amount: str) -> float:
    match = AMOUNT.fullmatch(amount)
    if match is None or match[2] not in ("", "%"):
        raise InvalidRequestError(f"slo: errors must be a share, got {amount!r}; {SYNTAX}", field="slo")
    share = float(match[1]) / (100 if match[2] else 1)
    if share > 1:
        raise InvalidRequestError(f"slo: errors must be at most 1, or 100%, got {amount!r}", field="slo")
    return share
