"""legs -> a plan whose stages only wait and hand on -> what the way between them takes, for benchmarks

A stage on a GPU leaves the CPU alone while it works; one that sleeps does too, and for how long is known.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from aiprod_components.plan import Call, Input, Plan, PlanBuilder, Ref, Step
from aiprod_components.stages import AIPROD_STAGES
from aiprod_components.stages.base import Progress
from aiprod_components.values import LatentGrid, Latents
from deployments.jobs.records import Claim
from deployments.orders import ForJob, Order, Report
from deployments.settings import API, DISPATCHER, FamilyArgs
from deployments.stage import StageReplica

APPLICATION = "waiting"
IDLE: dict[str, Any] = {"num_cpus": 0}


@dataclass(frozen=True)
class Leg:
    """A step with a replica of its own: who feeds it, and how many megabytes it hands on."""

    step: str
    inputs: tuple[str, ...]
    megabytes: float


@dataclass(frozen=True)
class Wait(Call[Latents]):
    stage: str  # type: ignore[misc]
    seconds: float
    megabytes: float
    inputs: tuple[Input[Latents], ...]


class Waiting:
    """Has what it hands on already when it is asked a second time."""

    def __init__(self, family: object, *, device: torch.device) -> None:
        self._made: dict[float, Tensor] = {}

    def run(self, call: Wait, progress: Progress) -> Latents:
        time.sleep(call.seconds)
        if call.megabytes not in self._made:
            self._made[call.megabytes] = torch.randn(1, 1, 1, 1, max(int(call.megabytes * 250_000), 1))
        return Latents(self._made[call.megabytes])


class WaitingReplica(StageReplica):
    """What every stage is served by, around one that waits."""

    def __init__(self, stage: str) -> None:
        AIPROD_STAGES[stage] = Waiting
        super().__init__(FamilyArgs(name="miniature"), stage)


class Listener:
    """Where stages look for the dispatcher; nods."""

    async def report(self, report: Report) -> bool:
        return True


class All:
    def __init__(self, **deployments: DeploymentHandle) -> None:
        pass


@dataclass
class Jobs:
    """Orders that belong to jobs, each to another: every result is kept, every step is told of."""

    artifacts: str
    fingerprint: str
    _numbers: "count[int]" = field(default_factory=count)

    def next(self) -> Callable[[Step], Order]:
        number = next(self._numbers)
        claim = Claim(f"video_{number}", 1, "benchmark")

        def order(step: Step) -> Order:
            return Order(step.name, step.call, ForJob(claim, self.artifacts, self.fingerprint, f"{step.name}-{number}", "tenant"))

        return order


def deploy(legs: Sequence[Leg]) -> dict[str, DeploymentHandle]:
    """Starts a replica for each leg on the cluster that runs; the result is what `run_plan` takes."""
    stages = {leg.step: serve.deployment(name=leg.step, ray_actor_options=IDLE)(WaitingReplica).bind(leg.step) for leg in legs}
    _start(APPLICATION, stages)
    return {leg.step: serve.get_deployment_handle(leg.step, app_name=APPLICATION) for leg in legs}


def listen(handles: dict[str, DeploymentHandle], *, artifacts: str) -> Jobs:
    """Starts somebody to report to; the jobs for these stages."""
    _start(API, {DISPATCHER: serve.deployment(name=DISPATCHER, ray_actor_options=IDLE)(Listener).bind()})
    stage: Any = next(iter(handles.values()))
    return Jobs(artifacts, stage.fingerprint.remote().result())


def _start(application: str, deployments: dict[str, Any]) -> None:
    serve.run(serve.deployment(ray_actor_options=IDLE)(All).bind(**deployments), name=application, route_prefix=None)


def make_plan(legs: Sequence[Leg], *, seconds: float) -> Plan:
    steps = PlanBuilder(family="none", pipeline=APPLICATION, grid=LatentGrid(time=4, space=16, channels=64))
    refs: dict[str, Ref[Latents]] = {}
    for leg in legs:
        refs[leg.step] = steps.add(leg.step, Wait(leg.step, seconds, leg.megabytes, tuple(refs[name] for name in leg.inputs)))
    return steps.build()
