"""what calls took -> seconds by amount of work, and how far calls scatter around that"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.capacity.times import StageTime

ALIKE = 1.1  # amounts of work that differ by less are one
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
    """The mean of calls of about one amount of work each, and how they scatter around it.

    Points and no line: a pass with guidance takes less than two without, and a small one more than its share of a large one.
    """
    groups: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: sample.amount):
        if not groups or sample.amount > ALIKE * groups[-1][0].amount:
            groups.append([])
        groups[-1].append(sample)
    means = [(float(amounts.mean()), float(seconds.mean())) for amounts, seconds in map(_columns, groups)]
    scatter = [np.log(seconds) - np.log(seconds).mean() for _, seconds in map(_columns, groups)]
    freedom = len(samples) - len(groups)
    spread = float(np.sqrt(np.square(np.concatenate(scatter)).sum() / freedom)) if freedom else 0.0
    points = tuple((_rounded(max(amount, LEAST)), _rounded(seconds)) for amount, seconds in means)
    return StageTime(points=points, spread=round(min(spread, 3.0), 4))


def _columns(samples: Sequence[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    amounts = np.array([sample.amount for sample in samples], dtype=np.float64)
    return amounts, np.maximum(np.array([sample.seconds for sample in samples]), LEAST)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
