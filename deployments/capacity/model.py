"""tasks, stage times, replicas -> lines that jobs wait in: what both ways to simulate walk through"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deployments.capacity.times import Overhead
from deployments.capacity.traffic import Columns, Floats

UNLIMITED = 2**62
NO_OVERHEAD = Overhead()


@dataclass(frozen=True)
class Machine:
    """Cores that several stages share."""

    cores: float
    exponent: float = 1.0

    def pace(self, wanted: float) -> float:
        return 1.0 if wanted <= self.cores else float((self.cores / wanted) ** self.exponent)


@dataclass(frozen=True)
class Line:
    """A stage: jobs wait for the first of its replicas that is free, in the order in which they are ready.

    Where it has a `machine` (its place), a replica at work wants `threads` of its cores.
    """

    name: str
    replicas: int = UNLIMITED
    machine: int | None = None
    threads: float = 1.0


@dataclass(frozen=True)
class Visit:
    """A task of a job: at which line (its place), how long on a device of its own, after which other visits, and on what a way."""

    line: int
    seconds: float
    spread: float = 0.0
    inputs: tuple[int, ...] = ()
    hop: float = 0.0


@dataclass(frozen=True)
class Model:
    """`jobs` are the visits of each class of requests, in an order in which each comes after what feeds it.

    `slots` are how many jobs of a family are at work at once; `family` says of each class whose it is.
    """

    lines: tuple[Line, ...]
    jobs: tuple[tuple[Visit, ...], ...]
    family: tuple[int, ...]
    overhead: Overhead = NO_OVERHEAD
    machines: tuple[Machine, ...] = ()
    slots: int = UNLIMITED
    seed: int = 0

    def with_replicas(self, replicas: tuple[int, ...]) -> "Model":
        lines = tuple(replace(line, replicas=count) for line, count in zip(self.lines, replicas, strict=True))
        return replace(self, lines=lines)

    @property
    def replicas(self) -> tuple[int, ...]:
        return tuple(line.replicas for line in self.lines)

    def service(self, columns: Columns) -> list[list[Floats]]:
        """For each class and visit, what each of the class' jobs takes there. Drawn once, so that every search sees the same luck."""
        counts = np.bincount(columns.kind, minlength=len(self.jobs))
        return [
            [_drawn(visit, int(count), np.random.default_rng([self.seed, kind, place])) for place, visit in enumerate(visits)]
            for kind, (visits, count) in enumerate(zip(self.jobs, counts, strict=True))
        ]


def _drawn(visit: Visit, count: int, rng: np.random.Generator) -> Floats:
    if not visit.spread:
        return np.full(count, visit.seconds)
    # The mean stays what was said.
    return visit.seconds * np.exp(rng.normal(-(visit.spread**2) / 2, visit.spread, size=count))


@dataclass(frozen=True)
class Outcome:
    """What became of every arrival: when its client knew (nan: it was cancelled), how long it waited at each line and for a slot.

    `busy` are the seconds that replicas of each line were taken, `ran` the mean of these for each class and visit; `peak` is how many jobs
    were at work at once.
    """

    columns: Columns
    done: Floats
    waited: NDArray[np.float64]  # lines x jobs
    for_slot: Floats
    busy: Floats
    ran: list[list[float]] = field(repr=False)
    peak: int

    @property
    def completed(self) -> NDArray[np.bool_]:
        return np.isfinite(self.done)

    @property
    def latency(self) -> Floats:
        """Of those that were completed."""
        return (self.done - self.columns.at)[self.completed]

    def quantile(self, share: float) -> float:
        latency = self.latency
        return float(np.quantile(latency, share)) if len(latency) else float("nan")

    def late(self, limit: float) -> NDArray[np.bool_]:
        """Which jobs took longer than `limit`; where none did, all that were completed."""
        late = self.completed & (self.done - self.columns.at > limit)
        return late if late.any() else self.completed
