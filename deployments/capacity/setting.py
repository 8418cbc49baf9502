"""traffic, families, stage times, pools -> the model that is simulated; and that of monolith replicas on the same traffic"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aiprod_components.families.base import Family
from aiprod_components.stages import STAGES
from deployments.capacity.graph import graphs_of
from deployments.capacity.model import UNLIMITED, Line, Machine, Model, Visit
from deployments.capacity.pools import Monolith, Pools
from deployments.capacity.times import Times
from deployments.capacity.traffic import Columns, Traffic
from deployments.work import Graph, Task

Deployment = tuple[str, str]  # family, stage


@dataclass(frozen=True)
class Setting:
    """All that a simulation depends on but the numbers of replicas. `slots` count where stages share cores; elsewhere they are planned."""

    traffic: Traffic
    families: Mapping[str, Family]
    times: Times
    pools: Pools
    slots: int

    @cached_property
    def graphs(self) -> tuple[Graph, ...]:
        return graphs_of(self.traffic, self.families)

    @cached_property
    def deployments(self) -> tuple[Deployment, ...]:
        """Those that the traffic needs, in the order of the work."""
        needed = {(task.family, task.stage) for graph in self.graphs for task in graph.tasks}
        return tuple(sorted(needed, key=lambda each: (each[0], STAGES.index(each[1]))))

    @property
    def is_shared(self) -> bool:
        """Whether stages share the cores of a machine."""
        return any(self.pools.of(stage).cores for _, stage in self.deployments)

    def model(self, replicas: Sequence[int] | None = None) -> Model:
        """`replicas` of each deployment (None: one for whoever comes)."""
        shared = [pool for pool in self.pools.pools if pool.cores]
        machines = tuple(Machine(float(pool.cores or 0), self.times.contention.exponent) for pool in shared)
        counts = [UNLIMITED] * len(self.deployments) if replicas is None else replicas

        def line(deployment: Deployment, count: int) -> Line:
            pool, share = self.pools.of(deployment[1]), self.pools.share(deployment[1])
            machine = shared.index(pool) if pool in shared else None
            return Line(".".join(deployment), count, machine, float(share.threads))

        lines = tuple(line(deployment, count) for deployment, count in zip(self.deployments, counts, strict=True))
        jobs = tuple(tuple(self._visit(task) for task in graph.tasks) for graph in self.graphs)
        slots = self.slots if machines else UNLIMITED
        return Model(lines, jobs, self._family_numbers, self.times.overhead, machines, slots, self.traffic.seed)

    def _visit(self, task: Task) -> Visit:
        time = self.times.of(task.family, task.stage)
        seconds = time.seconds(task.units) / self.pools.of(task.stage).speed
        line = self.deployments.index((task.family, task.stage))
        return Visit(line, seconds, time.spread, task.inputs, self.times.hop.of(task.input_bytes))

    @property
    def _family_numbers(self) -> tuple[int, ...]:
        names = sorted({graph.family for graph in self.graphs})
        return tuple(names.index(graph.family) for graph in self.graphs)

    def monolith(self, kind: Monolith, replicas: int = UNLIMITED) -> Model:
        """Every video from beginning to end on one replica, with nothing to hand over; one replica serves all families of the traffic."""

        def visit(graph: Graph) -> Visit:
            times = [self.times.of(task.family, task.stage) for task in graph.tasks]
            takes = [time.seconds(task.units) / kind.speed for time, task in zip(times, graph.tasks, strict=True)]
            deviation = math.hypot(*(seconds * time.spread for seconds, time in zip(takes, times, strict=True)))
            return Visit(0, sum(takes), deviation / sum(takes))

        jobs = tuple((visit(graph),) for graph in self.graphs)
        return Model((Line("monolith", replicas),), jobs, (0,) * len(jobs), self.times.overhead, seed=self.traffic.seed)

    @property
    def memory_gb(self) -> float:
        """Of the weights of all stages that the traffic needs, each once."""
        return sum(self.pools.share(stage).memory_gb for _, stage in self.deployments)


def work_of(model: Model, columns: Columns) -> list[float]:
    """Seconds of work for each line, on devices of their own; of a job that is cancelled, what is done by then if it waits for nobody."""
    work = [0.0] * len(model.lines)
    for kind, visits in enumerate(model.jobs):
        here = columns.kind == kind
        left = (columns.cancelled_at - columns.at)[here] - model.overhead.before - model.overhead.held
        cancelled = left[np.isfinite(left)]
        whole = len(left) - len(cancelled)
        ends: list[float] = []
        for visit in visits:
            begin = max((ends[source] for source in visit.inputs), default=0.0) + visit.hop
            ends.append(begin + visit.seconds)
            work[visit.line] += whole * visit.seconds + float(np.clip(cancelled - begin, 0.0, visit.seconds).sum())
    return work
