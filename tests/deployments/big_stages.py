"""a number of megabytes -> a tensor of that size -> its length: two stages for the tests of how values travel"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from aiprod_components.plan import Call, Input, Plan, PlanBuilder
from aiprod_components.values import LatentGrid
from deployments.envelope import Sealed


@dataclass(frozen=True)
class Big:
    tensor: Tensor


@dataclass(frozen=True)
class Length:
    bytes: int


@dataclass(frozen=True)
class Make(Call[Big]):
    stage = "maker"
    megabytes: int


@dataclass(frozen=True)
class Measure(Call[Length]):
    stage = "measurer"
    big: Input[Big]


class Maker:
    async def run(self, step: str, call: Make, sent_at: float, /) -> Sealed:
        return Sealed.of(Big(torch.ones(call.megabytes * 1_000_000 // 2, dtype=torch.bfloat16)), receipts=())


class Measurer:
    async def run(self, step: str, call: Measure, sent_at: float, /, **inputs: Sealed) -> Sealed:
        (sealed,) = inputs.values()
        return Sealed.of(Length(int(sealed.open().tensor.sum(dtype=torch.float64).item()) * 2), receipts=())


def make_plan(megabytes: int) -> Plan:
    steps = PlanBuilder(family="test", pipeline=f"made {time.time()}", grid=LatentGrid(4, 16, 64))
    steps.add("length", Measure(steps.add("big", Make(megabytes))))
    return steps.build()
