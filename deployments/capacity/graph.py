"""a class of requests and its family -> its plan -> a graph of tasks: whose they are, how much work, what feeds them"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.plan import Plan
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.capacity.traffic import Arrival, Traffic


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


def plan_of(request: Mapping[str, Any], *, wire: Wire, number: int = 0) -> Plan:
    """Of one request of a class. Raises InvalidRequestError as the server would."""
    arrival = Arrival(0.0, "", request, None, number)
    return wire.read(Body(arrival.body, is_json=True)).plan


def graphs_of(traffic: Traffic, families: Mapping[str, Family]) -> tuple[Graph, ...]:
    """One for each class. Raises InvalidRequestError naming the class whose request would be refused."""
    wire = Wire(families)

    def graph(place: int) -> Graph:
        try:
            return graph_of(plan_of(traffic.classes[place].request, wire=wire))
        except InvalidRequestError as error:
            field = f"classes.{place}.request"
            raise InvalidRequestError(f"traffic: {field} would be refused: {error.message}", field=field) from error

    return tuple(graph(place) for place in range(len(traffic.classes)))
