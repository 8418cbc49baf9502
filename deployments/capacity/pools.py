"""pools.yaml -> which stage runs on what, at what price; replicas -> the GPUs or machines that they fill

A pool is nodes of one kind, known by their label `aiprod-pool`. Replicas take shares of a GPU and are packed as Ray packs them: onto the
fullest GPU that has room.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.reading import Strict

LABEL = "aiprod-pool"
EDGE = 1e-9  # what sums of shares are off by
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Share(Strict):
    """What a replica of a stage takes: of a GPU, of its node's CPUs as Ray counts them, threads that compute; its weights in gigabytes."""

    gpus: float = Field(default=0.0, ge=0)
    cpus: float = Field(default=1.0, ge=0)
    threads: int = Field(default=1, ge=1)
    memory_gb: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _is_one_gpu_or_many(self) -> "Share":
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus must be at most 1 or whole, got {self.gpus:g}")
        return self


class Pool(Strict):
    """Nodes of one kind. `price_per_hour` is that of one GPU, or where it has `cores`, of one machine with so many, which its stages share.

    `speed` is how fast its stages are beside the stage times that were said.
    """

    name: str = Field(min_length=1)
    accelerator: str | None = None
    cores: int | None = Field(default=None, ge=1)
    price_per_hour: Price
    speed: float = Field(default=1.0, gt=0)
    stages: Mapping[str, Share] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> "Pool":
        if (self.accelerator is None) == (self.cores is None):
            raise ValueError("a pool has an accelerator, or cores that its stages share; say one of the two")
        for stage, share in self.stages.items():
            if (share.gpus > 0) != (self.cores is None):
                way_out = "leave gpus out" if self.cores else "say how many gpus (0.1 is a tenth of one)"
                raise ValueError(f"stages.{stage} does not fit this pool; {way_out}")
        return self

    def units(self, replicas: Mapping[str, int]) -> int:
        """The GPUs that so many replicas of its stages fill; of a pool with cores, its one machine."""
        if self.cores is not None:
            return 1
        return packed([self.stages[stage].gpus for stage, count in replicas.items() for _ in range(count)])


class Monolith(Strict):
    """A replica with all stages on one GPU, which makes one video at a time."""

    accelerator: str
    price_per_hour: Price
    memory_gb: float | None = Field(default=None, gt=0)
    speed: float = Field(default=1.0, gt=0)


class Pools(Strict):
    """Where every stage runs, and what monolith replicas would run on."""

    source: str = ""
    pools: tuple[Pool, ...] = Field(min_length=1)
    monolith: Monolith | None = None

    @model_validator(mode="after")
    def _have_each_stage_once(self) -> "Pools":
        stages = [stage for pool in self.pools for stage in pool.stages]
        if twice := next((stage for stage in stages if stages.count(stage) > 1), None):
            raise ValueError(f"stage {twice} is in two pools; leave it in one")
        names = [pool.name for pool in self.pools]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"there are two pools {twice}; give each a name of its own")
        return self

    def of(self, stage: str) -> Pool:
        """Raises InvalidRequestError for a stage that has none."""
        if (found := next((pool for pool in self.pools if stage in pool.stages), None)) is None:
            raise InvalidRequestError(
                f"pools: no pool has stage {stage}, and the traffic needs it; add it to the stages of one of {self._names}", field="pools"
            )
        return found

    def share(self, stage: str) -> Share:
        return self.of(stage).stages[stage]

    @property
    def _names(self) -> str:
        return ", ".join(pool.name for pool in self.pools)


def packed(shares: Sequence[float]) -> int:
    """GPUs that so many shares fill, the largest first; a share of several whole GPUs has them to itself."""
    whole = sum(round(share) for share in shares if share >= 1)
    parts = sorted((share for share in shares if share < 1), reverse=True)
    rooms: dict[float, int] = {}  # what is left on a GPU -> how many have so much left
    for share in parts:
        fullest = min((room for room in rooms if room >= share - EDGE), default=None)
        if fullest is not None:
            rooms[fullest] -= 1
            if not rooms[fullest]:
                del rooms[fullest]
        left = round((1.0 if fullest is None else fullest) - share, 9)
        rooms[left] = rooms.get(left, 0) + 1
    return whole + sum(rooms.values())


def hourly(pools: Sequence[Pool], replicas: Mapping[str, int]) -> float:
    """What all pools cost in an hour; `replicas` by stage."""
    return sum(pool.price_per_hour * pool.units({stage: replicas.get(stage, 0) for stage in pool.stages}) for pool in pools)


def at_least(load: float) -> int:
    """Replicas that so many seconds of work a second keep busy, and not more than busy."""
    return max(math.ceil(load - EDGE), 1)
