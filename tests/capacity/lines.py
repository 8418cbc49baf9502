"""service times, replicas, arrivals -> a model and its arrivals, for tests"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.capacity.model import Line, Model, Visit
from deployments.capacity.traffic import Columns


def tandem(seconds: Sequence[float], replicas: Sequence[int], *, hop: float = 0.0, spread: float = 0.0, **options: Any) -> Model:
    """One class of jobs, which goes from line to line."""
    lines = tuple(Line(f"line {place}", count) for place, count in enumerate(replicas))
    visits = tuple(Visit(place, takes, spread, (place - 1,) if place else (), hop) for place, takes in enumerate(seconds))
    return Model(lines, (visits,), (0,), **options)


def arrivals(at: Sequence[float], *, kind: Sequence[int] | None = None, cancelled_at: dict[int, float] | None = None) -> Columns:
    ends = np.full(len(at), np.inf)
    for job, moment in (cancelled_at or {}).items():
        ends[job] = moment
    return Columns(np.array(at, dtype=float), np.array(kind or [0] * len(at)), ends)


def poisson(rate: float, seconds: float, *, seed: int = 1) -> Columns:
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1 / rate, size=int(rate * seconds)))
    return Columns(at, np.zeros(len(at), dtype=np.int64), np.full(len(at), np.inf))
