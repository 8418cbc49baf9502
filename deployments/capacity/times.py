"""times.yaml -> how long each stage takes for a unit of work, what the way between two stages costs, how cores are shared

A unit is one token once through the denoiser, or what takes as long elsewhere: `network_calls x tokens x weight` of a call, a thousandth
of what `POST /v1/plans` calls cost.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.reading import Strict

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StageTime(Strict):
    """What a call takes on a replica that has its device to itself: so much a unit of work, and so much besides; or as was measured.

    `points` are amounts of work, rising, and the seconds that they took: between two of them on a straight line, beyond in proportion.
    `spread` is the deviation of a call's logarithm, 0 where every call takes as long as it should.
    """

    seconds_per_unit: Seconds = 0.0
    seconds_per_call: Seconds = 0.0
    points: tuple[tuple[Amount, Amount], ...] = ()
    spread: float = Field(default=0.0, ge=0, le=3)

    @model_validator(mode="after")
    def _takes_time(self) -> "StageTime":
        if bool(self.points) == bool(self.seconds_per_unit + self.seconds_per_call):
            raise ValueError("a stage takes time; say points, or seconds_per_unit, seconds_per_call or both of these")
        if any(before >= after for (before, _), (after, _) in pairwise(self.points)):
            raise ValueError(f"points must rise in their amounts of work, got {', '.join(f'{units:g}' for units, _ in self.points)}")
        return self

    def seconds(self, units: float) -> float:
        if not self.points:
            return self.seconds_per_call + self.seconds_per_unit * units
        amounts, seconds = zip(*self.points, strict=True)
        nearest = min(max(units, amounts[0]), amounts[-1])
        return float(np.interp(nearest, amounts, seconds)) * units / nearest


class Hop(Strict):
    """The way of a call to its stage, with the results that feed it."""

    seconds: Seconds = 0.0
    seconds_per_megabyte: Seconds = 0.0

    def of(self, size: int) -> float:
        return self.seconds + self.seconds_per_megabyte * size / 1e6


class Overhead(Strict):
    """Of a job: `before` it may be claimed, `held` when it has a slot and no stage works for it, `after` until its client knows."""

    before: Seconds = 0.0
    held: Seconds = 0.0
    after: Seconds = 0.0


class Contention(Strict):
    """How work on one machine's cores slows down when it wants more of them than there are: to `(cores / wanted) ** exponent` of its pace.

    1 is a fair share of the cores; above it threads hinder each other besides, below it they leave some of their cores idle.
    """

    exponent: float = Field(default=1.0, ge=0, le=4)


class Times(Strict):
    """Stage times by family; `source` says where they come from."""

    source: str = Field(min_length=1)
    stages: Mapping[str, Mapping[str, StageTime]]
    hop: Hop = Hop()
    overhead: Overhead = Overhead()
    contention: Contention = Contention()

    def of(self, family: str, stage: str) -> StageTime:
        """Raises InvalidRequestError for a stage whose time is not known."""
        if (found := self.stages.get(family, {}).get(stage)) is None:
            raise InvalidRequestError(
                f"times: stages.{family}.{stage} is missing, and the traffic needs that stage; say what it takes, or measure it with "
                "`aiprod capacity calibrate`",
                field=f"stages.{family}.{stage}",
            )
        return found
