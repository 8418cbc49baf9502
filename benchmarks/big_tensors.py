"""megabytes -> a tensor of that size -> its sum: two stages that do nothing but hand a value on, for benchmarks and tests"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from aiprod_components.plan import Call, Input, Plan, PlanBuilder
from aiprod_components.values import LatentGrid
from deployments.envelope import Sealed
from deployments.orders import Order

APPLICATION = "big_tensors"


@dataclass(frozen=True)
class Big:
    tensor: Tensor


@dataclass(frozen=True)
class Sum:
    sum: float


@dataclass(frozen=True)
class Make(Call[Big]):
    stage: ClassVar[str] = "maker"
    megabytes: int


@dataclass(frozen=True)
class Add(Call[Sum]):
    stage: ClassVar[str] = "adder"
    big: Input[Big]


class Maker:
    """Has the tensor already when it is asked a second time: what is measured is the way, not the making."""

    def __init__(self) -> None:
        self._made: dict[int, Tensor] = {}

    async def run(self, order: Order, /) -> Sealed:
        call = cast(Make, order.call)
        if call.megabytes not in self._made:
            self._made = {call.megabytes: torch.ones(call.megabytes * 500_000, dtype=torch.bfloat16)}
        return Sealed.of(Big(self._made[call.megabytes]), receipts=())


class Adder:
    async def run(self, order: Order, /, **inputs: Sealed) -> Sealed:
        (sealed,) = inputs.values()
        return Sealed.of(Sum(sealed.open().tensor.sum(dtype=torch.float64).item()), receipts=())


class Both:
    def __init__(self, **stages: DeploymentHandle) -> None:
        pass


def deploy() -> dict[str, DeploymentHandle]:
    """Starts the two stages on the cluster that runs; the result is what `run_plan` takes."""
    idle: dict[str, Any] = {"num_cpus": 0}
    stages = {"maker": Maker, "adder": Adder}
    bound = {name: serve.deployment(name=name, ray_actor_options=idle)(stage).bind() for name, stage in stages.items()}
    serve.run(serve.deployment(ray_actor_options=idle)(Both).bind(**bound), name=APPLICATION, route_prefix=None)
    return {stage: serve.get_deployment_handle(stage, app_name=APPLICATION) for stage in stages}


def make_plan(megabytes: int) -> Plan:
    steps = PlanBuilder(family="none", pipeline=APPLICATION, grid=LatentGrid(time=4, space=16, channels=64))
    steps.add("sum", Add(steps.add("big", Make(megabytes))))
    return steps.build()
