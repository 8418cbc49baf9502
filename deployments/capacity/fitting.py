"""what calls took -> seconds a unit of work and seconds a call, none below 0, and how far calls scatter around that"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.capacity.times import StageTime

APART = 1.5  # amounts of work that differ by less say nothing of what a call takes besides
LEAST = 1e-6  # seconds
ROUNDS = 5  # after which the line stays where it is


@dataclass(frozen=True)
class Sample:
    """A call: its amount of work, and the seconds that it took."""

    amount: float
    seconds: float


def line_through(samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds at no work and seconds a unit: the straight line that is off by the least share of what it says."""
    amounts, seconds = _columns(samples)
    if amounts.max() <= APART * amounts.min() or not amounts.min() + amounts.max():
        return (0.0, float(seconds.mean() / amounts.mean())) if amounts.max() > 0 else (float(seconds.mean()), 0.0)
    said = np.full(len(samples), seconds.mean())
    base = slope = 0.0
    for _ in range(ROUNDS):
        # A share of what was measured would make the line too low: short measurements would weigh more.
        base, slope = np.linalg.lstsq(np.stack([1 / said, amounts / said], axis=1), seconds / said)[0]
        said = np.maximum(base + slope * amounts, LEAST)
    if base < 0:
        return 0.0, float(seconds.sum() / amounts.sum())
    if slope < 0:
        return float(seconds.mean()), 0.0
    return float(base), float(slope)


def stage_time(samples: Sequence[Sample]) -> StageTime:
    base, slope = line_through(samples)
    amounts, seconds = _columns(samples)
    scatter = np.log(seconds / (base + slope * amounts))
    # The mean is what was fitted; of one sample nothing is known.
    spread = float(scatter.std(ddof=1)) if len(samples) > 1 else 0.0
    return StageTime(seconds_per_unit=_rounded(slope), seconds_per_call=_rounded(base), spread=round(min(spread, 3.0), 4))


def _columns(samples: Sequence[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    amounts = np.array([sample.amount for sample in samples])
    return amounts, np.maximum(np.array([sample.seconds for sample in samples]), LEAST)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
