"""calls that refer to each other -> a plan: named steps and who feeds whom, as pure data"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from aiprod_components.values import MEDIA, LatentGrid

T = TypeVar("T")

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Ref(Generic[T]):
    """Stands for the result of an earlier step."""

    step: str


Input = Ref[T] | T


@dataclass(frozen=True)
class Work:
    """What a call costs before it is run: passes through its network, positions per pass, bytes it hands on."""

    network_calls: int
    tokens: int
    output_bytes: int


class Call(Generic[T]):
    """One request to one stage; generic in what it yields. Subclasses are frozen dataclasses that name their stage.

    `weight` is what a token takes on its way through the stage's network, beside what it takes in the denoiser's.
    """

    stage: ClassVar[str]
    weight: ClassVar[float] = 1.0

    def work(self, grid: LatentGrid) -> Work:
        """What the call costs, known before it runs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Step:
    name: str
    call: Call[Any]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The steps that feed this one, each once, in the order in which the call names them."""
        return tuple(dict.fromkeys(ref.step for ref in refs_in(self.call)))


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each comes after what feeds it; the last one yields the answer."""

    family: str
    pipeline: str
    grid: LatentGrid
    steps: tuple[Step, ...]

    @property
    def output(self) -> str:
        return self.steps[-1].name


class PlanBuilder:
    """Records calls as a pipeline makes them."""

    def __init__(self, *, family: str, pipeline: str, grid: LatentGrid) -> None:
        self._family, self._pipeline, self._grid = family, pipeline, grid
        self._steps: dict[str, Step] = {}

    def add(self, name: str, call: Call[T]) -> Ref[T]:
        """Adds a step. Raises ValueError for a name that is taken or an input that is not there yet: a pipeline's bug."""
        step = Step(name, call)
        if name in self._steps:
            raise ValueError(f"the plan has a step {name!r} already")
        for source in step.inputs:
            if source not in self._steps:
                raise ValueError(f"step {name!r} reads {source!r}, which is not before it")
        self._steps[name] = step
        return Ref(name)

    def build(self) -> Plan:
        return Plan(self._family, self._pipeline, self._grid, tuple(self._steps.values()))


def parts_of(value: object) -> Iterator[object]:
    """A value and all that is in it, through tuples and dataclasses."""
    yield value
    if isinstance(value, tuple):
        for item in value:
            yield from parts_of(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from parts_of(getattr(value, field.name))


def refs_in(value: object) -> Iterator[Ref[Any]]:
    """Every Ref inside a call, through its tuples and dataclasses."""
    return (part for part in parts_of(value) if isinstance(part, Ref))


def fill(call: Call[T], results: Mapping[str, object]) -> Call[T]:
    """The call with every Ref replaced by the result of its step."""
    return _map_refs(call, lambda ref: results[ref.step])


def _map_refs(value: Any, resolve: Callable[[Ref[Any]], object]) -> Any:
    if isinstance(value, Ref):
        return resolve(value)
    if isinstance(value, tuple):
        return tuple(_map_refs(item, resolve) for item in value)
    if is_dataclass(value) and not isinstance(value, type) and next(refs_in(value), None) is not None:
        return replace(value, **{field.name: _map_refs(getattr(value, field.name), resolve) for field in fields(value)})
    return value


def identify(plan: Plan, *, fingerprint: str, own: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """Each step's identity: a hash of its stage's fingerprint, its call, and the identities of what feeds it.

    A stage's fingerprint is the family's, but for those that have their `own`.

    Steps of one identity have one result, in whatever plan they are and whatever they are called there.
    """
    identities: dict[str, str] = {}
    for step in plan.steps:
        content = json.dumps([own.get(step.call.stage, fingerprint), step.call.stage, _as_content(step.call, identities)])
        identities[step.name] = hashlib.sha256(content.encode()).hexdigest()
    return identities


def _as_content(value: Any, identities: Mapping[str, str]) -> Any:
    """What is in a value, as JSON that no other value has: 1, 1.0, "1" and true differ there, and floats are written exactly."""
    if isinstance(value, Ref):
        return {"result of": identities[value.step]}
    if isinstance(value, MEDIA):
        return {type(value).__name__: value.digest}
    if isinstance(value, tuple):
        return [_as_content(item, identities) for item in value]
    if isinstance(value, float):
        return value + 0.0  # -0.0 equals 0.0, and not every database keeps the sign
    if value is None or isinstance(value, str | int):
        return value
    if is_dataclass(value):
        return {type(value).__name__: {field.name: _as_content(getattr(value, field.name), identities) for field in fields(value)}}
    raise TypeError(f"a call cannot hold a {type(value).__name__}: {value!r}")


def private(plan: Plan) -> dict[str, bool]:
    """For each step, whether a picture, video or sound that somebody sent is in it, or in what feeds it."""
    told: dict[str, bool] = {}
    for step in plan.steps:
        told[step.name] = any(isinstance(part, MEDIA) for part in parts_of(step.call)) or any(told[n] for n in step.inputs)
    return told


def cost_of(plan: Plan) -> float:
    """What a plan costs, above 0: thousands of passes of a token through the denoiser, or what takes as long elsewhere."""
    return sum(_cost(step.call, step.call.work(plan.grid)) for step in plan.steps)


def _cost(call: Call[Any], work: Work) -> float:
    return call.weight * work.network_calls * work.tokens / 1000


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data, with the work of every step and of all: what `POST /v1/plans` and `aiprod plan` show.

    In the totals tokens count once per pass through the network.
    """
    works = [step.call.work(plan.grid) for step in plan.steps]
    return {
        "family": plan.family,
        "pipeline": plan.pipeline,
        "output": plan.output,
        "steps": [_describe_step(step, work=work) for step, work in zip(plan.steps, works, strict=True)],
        "totals": {
            "network_calls": sum(work.network_calls for work in works),
            "tokens": sum(work.network_calls * work.tokens for work in works),
            "output_bytes": sum(work.output_bytes for work in works),
        },
    }


def _describe_step(step: Step, *, work: Work) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.call.stage,
        "call": type(step.call).__name__,
        "inputs": list(step.inputs),
        "arguments": {field.name: _describe_value(getattr(step.call, field.name)) for field in fields(step.call)},  # type: ignore[arg-type]
        "cost": round(_cost(step.call, work), 6),
        "work": {"network_calls": work.network_calls, "tokens": work.tokens, "output_bytes": work.output_bytes},
    }


def _describe_value(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"from": value.step}
    if isinstance(value, tuple):
        return [_describe_value(item) for item in value]
    if hasattr(value, "digest"):
        return {"sha256": value.digest}
    if is_dataclass(value):
        return {field.name: _describe_value(getattr(value, field.name)) for field in fields(value)}
    return value
