"""a plan -> a graph of tasks: whose they are, how much work, what feeds them; and the graph as a job's row has it"""

import json
from dataclasses import dataclass
from typing import Any

from aiprod_components.plan import Plan


@dataclass(frozen=True)
class Task:
    """A step of a plan: `deployment` is FAMILY.STAGE, `inputs` are places of other tasks."""

    step: str
    family: str
    stage: str
    units: float
    inputs: tuple[int, ...]
    input_bytes: int

    @property
    def deployment(self) -> str:
        return f"{self.family}.{self.stage}"


@dataclass(frozen=True)
class Graph:
    """What a request takes, each task after what feeds it; the last one yields the video."""

    family: str
    pipeline: str
    tasks: tuple[Task, ...]


def graph_of(plan: Plan) -> Graph:
    places = {step.name: place for place, step in enumerate(plan.steps)}
    works = [step.call.work(plan.grid) for step in plan.steps]

    def task(step: Any, units: float) -> Task:
        inputs = tuple(places[name] for name in step.inputs)
        size = sum(works[place].output_bytes for place in inputs)
        return Task(step.name, plan.family, step.call.stage, units, inputs, size)

    units = [step.call.weight * work.network_calls * work.tokens for step, work in zip(plan.steps, works, strict=True)]
    return Graph(plan.family, plan.pipeline, tuple(task(step, amount) for step, amount in zip(plan.steps, units, strict=True)))


def to_text(graph: Graph) -> str:
    """The same for all jobs that want the same work, so that a database can count them."""
    return json.dumps([[task.step, task.stage, task.units] for task in graph.tasks], separators=(",", ":"))


def from_text(family: str, text: str) -> tuple[Task, ...]:
    """The tasks without what feeds them."""
    return tuple(Task(step, family, stage, units, (), 0) for step, stage, units in json.loads(text))
