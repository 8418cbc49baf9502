"""traffic.yaml -> who asks for what, and when: the same arrivals for the simulation and for the load test

Open loop: nobody waits for an answer before asking again. Each class draws from a generator of its own, so that a class that is added
or changed leaves the others' arrivals as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.reading import Strict, read_yaml

Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_ARRIVALS = 20_000_000
SUBJECTS = ("a red ball moves right", "a blue cube orbits", "a green ring bounces", "a yellow ball grows", "a white cube moves up")


class Poisson(Strict):
    """Independent requests, so many a second on average."""

    kind: Literal["poisson"]
    per_second: Positive

    def times(self, seconds: float, rng: np.random.Generator) -> Floats:
        drawn = np.cumsum(rng.exponential(size=_bounded(self.per_second * seconds)))
        while drawn[-1] < self.per_second * seconds:
            drawn = np.concatenate([drawn, drawn[-1] + np.cumsum(rng.exponential(size=64))])
        # Drawn at one a second: at another rate the same pattern comes faster or slower.
        return drawn[drawn < self.per_second * seconds] / self.per_second

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"per_second": self.per_second * factor})


class Bursts(Strict):
    """`size` requests within `within` seconds, again and again."""

    kind: Literal["bursts"]
    every: Positive
    size: int = Field(ge=1)
    within: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def times(self, seconds: float, rng: np.random.Generator) -> Floats:
        begins = np.arange(0.0, seconds, self.every)
        _bounded(len(begins) * self.size)
        spread = rng.uniform(0.0, self.within, size=(len(begins), self.size)) if self.within else np.zeros((len(begins), self.size))
        times = np.sort((begins[:, None] + spread).ravel())
        return times[times < seconds]

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"every": self.every / factor})


class At(Strict):
    """At these seconds, as recorded."""

    kind: Literal["at"]
    seconds: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(min_length=1)

    def times(self, seconds: float, rng: np.random.Generator) -> Floats:
        times = np.sort(np.array(self.seconds))
        return times[times < seconds]

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"seconds": tuple(second / factor for second in self.seconds)})


class TrafficClass(Strict):
    """Requests of one kind: `request` is the body of POST /v1/videos without prompt and seed.

    A share of them, `cancels`, is cancelled `cancel_after` seconds after it was asked for.
    """

    name: str = Field(min_length=1)
    persona: Literal["steady", "burst", "long_video", "cancel_happy"] = "steady"
    request: Mapping[str, Any]
    arrival: Annotated[Poisson | Bursts | At, Field(discriminator="kind")]
    cancels: float = Field(default=0.0, ge=0, le=1)
    cancel_after: Positive = 1.0

    @field_validator("request")
    @classmethod
    def _is_a_kind(cls, request: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in ("prompt", "seed"):
            if name in request:
                raise ValueError(f"{name} is each request's own; leave it out")
        return request


@dataclass(frozen=True)
class Arrival:
    """One request, `at` seconds after the beginning; `cancel_after` seconds later it is cancelled (None: it is not)."""

    at: float
    class_name: str
    request: Mapping[str, Any]
    cancel_after: float | None
    number: int

    @property
    def body(self) -> dict[str, Any]:
        """What is asked for: each arrival's video is one that nobody has made yet, so that none is found instead of made."""
        return {**self.request, "prompt": f"{SUBJECTS[self.number % len(SUBJECTS)]}, take {self.number}", "seed": self.number}


@dataclass(frozen=True)
class Columns:
    """All arrivals in order: when, of which class (its place), and when each is cancelled (inf: never)."""

    at: Floats
    kind: NDArray[np.int64]
    cancelled_at: Floats

    def __len__(self) -> int:
        return len(self.at)

    def part(self, chosen: NDArray[np.bool_]) -> "Columns":
        return Columns(self.at[chosen], self.kind[chosen], self.cancelled_at[chosen])


class Traffic(Strict):
    """Who asks for what, and when."""

    name: str = Field(min_length=1)
    seconds: Positive
    seed: int = Field(default=1, ge=0)
    classes: tuple[TrafficClass, ...] = Field(min_length=1)

    @field_validator("classes")
    @classmethod
    def _are_named_once(cls, classes: tuple[TrafficClass, ...]) -> tuple[TrafficClass, ...]:
        names = [each.name for each in classes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"there are two classes {twice}; give each a name of its own")
        return classes

    @classmethod
    def load(cls, path: str | Path) -> "Traffic":
        """Raises InvalidRequestError naming the file, the field, its value and the way out."""
        return read_yaml(path, cls)

    def columns(self, seconds: float | None = None) -> Columns:
        """Every arrival in the first `seconds` (None: in all), as arrays."""
        length = self.seconds if seconds is None else seconds
        times: list[Floats] = []
        ends: list[Floats] = []
        for place, each in enumerate(self.classes):
            rng, fate = np.random.default_rng([self.seed, place, 0]), np.random.default_rng([self.seed, place, 1])
            at = each.arrival.times(length, rng)
            times.append(at)
            ends.append(np.where(fate.random(len(at)) < each.cancels, at + each.cancel_after, np.inf))
        at = np.concatenate(times)
        kind = np.repeat(np.arange(len(times)), [len(each) for each in times])
        order = np.argsort(at, kind="stable")
        return Columns(at[order], kind[order], np.concatenate(ends)[order])

    def arrivals(self, seconds: float | None = None) -> list[Arrival]:
        """Every arrival in the first `seconds` (None: in all), in order; the same whenever it is asked."""
        columns = self.columns(seconds)
        classes = [self.classes[kind] for kind in columns.kind]
        whens = zip(columns.at.tolist(), columns.cancelled_at.tolist(), strict=True)
        return [
            Arrival(at, each.name, each.request, None if end == np.inf else each.cancel_after, number)
            for number, (each, (at, end)) in enumerate(zip(classes, whens, strict=True))
        ]

    def scaled(self, factor: float) -> "Traffic":
        """The same pattern, `factor` times as dense."""
        denser = tuple(each.model_copy(update={"arrival": each.arrival.scaled(factor)}) for each in self.classes)
        return self.model_copy(update={"classes": denser})


def _bounded(count: float) -> int:
    """How many to draw at first."""
    if count > MOST_ARRIVALS:
        told = f"traffic: {count:.3g} arrivals of one class are more than fit in memory ({MOST_ARRIVALS:,})"
        raise InvalidRequestError(f"{told}; ask for fewer seconds, or fewer a second", field="traffic")
    return int(count + 4 * count**0.5) + 16
