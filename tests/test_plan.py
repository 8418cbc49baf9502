"""calls -> steps -> a plan that can be filled, printed and refused"""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from aiprod_components.plan import Call, Input, PlanBuilder, Ref, Work, cost_of, describe, fill, refs_in
from aiprod_components.values import LatentGrid, Picture

GRID = LatentGrid(time=4, space=16, channels=64)


@dataclass(frozen=True)
class Draw(Call[str]):
    stage: ClassVar[str] = "artist"
    subject: str
    model: Picture | None = None

    def work(self, grid: LatentGrid) -> Work:
        return Work(1, grid.space, len(self.subject))


@dataclass(frozen=True)
class Layer:
    """Something inside a call that refers to a result."""

    picture: Input[str]
    opacity: float


@dataclass(frozen=True)
class Compose(Call[str]):
    stage: ClassVar[str] = "editor"
    weight: ClassVar[float] = 2.5
    base: Input[str]
    layers: tuple[Layer, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        return Work(len(self.layers), grid.space, 0)


def builder() -> PlanBuilder:
    return PlanBuilder(family="paper", pipeline="collage", grid=GRID)


def test_refs_are_found_through_tuples_and_dataclasses() -> None:
    call = Compose(Ref("sky"), (Layer(Ref("sun"), 0.5), Layer("a literal", 1.0), Layer(Ref("sky"), 0.1)))
    assert [ref.step for ref in refs_in(call)] == ["sky", "sun", "sky"]


def test_fill_puts_results_where_the_refs_are() -> None:
    call = Compose(Ref("sky"), (Layer(Ref("sun"), 0.5), Layer("a literal", 1.0)))
    filled = fill(call, {"sky": "blue", "sun": "yellow"})
    assert filled == Compose("blue", (Layer("yellow", 0.5), Layer("a literal", 1.0)))


def test_fill_leaves_the_call_as_it_was() -> None:
    call = Compose(Ref("sky"))
    fill(call, {"sky": "blue"})
    assert call == Compose(Ref("sky"))


def test_a_call_without_refs_is_filled_by_itself() -> None:
    call = Draw("a dog")
    assert fill(call, {}) is call


def test_a_step_names_each_input_once_in_order() -> None:
    steps = builder()
    sky, sun = steps.add("sky", Draw("sky")), steps.add("sun", Draw("sun"))
    steps.add("all", Compose(sun, (Layer(sky, 0.5), Layer(sun, 0.5))))
    assert steps.build().steps[-1].inputs == ("sun", "sky")


def test_the_last_step_yields_the_answer() -> None:
    steps = builder()
    steps.add("all", Compose(steps.add("sky", Draw("sky"))))
    assert steps.build().output == "all"


def test_a_name_is_taken_once() -> None:
    steps = builder()
    steps.add("sky", Draw("sky"))
    with pytest.raises(ValueError, match="has a step 'sky' already"):
        steps.add("sky", Draw("another sky"))


def test_an_input_must_come_before() -> None:
    with pytest.raises(ValueError, match="step 'all' reads 'sky', which is not before it"):
        builder().add("all", Compose(Ref("sky")))


def test_a_refused_step_leaves_the_plan_as_it_was() -> None:
    steps = builder()
    steps.add("sky", Draw("sky"))
    with pytest.raises(ValueError, match="not before it"):
        steps.add("all", Compose(Ref("sun")))
    assert [step.name for step in steps.build().steps] == ["sky"]


def test_a_plan_is_described_as_data() -> None:
    steps = builder()
    sky = steps.add("sky", Draw("sky", model=Picture(b"pixels")))
    steps.add("all", Compose(sky, (Layer(sky, 0.5),)))
    described = describe(steps.build())
    assert described == json.loads(json.dumps(described))
    assert (described["family"], described["pipeline"], described["output"]) == ("paper", "collage", "all")
    drawn, composed = described["steps"]
    assert (drawn["stage"], drawn["call"], drawn["inputs"]) == ("artist", "Draw", [])
    assert drawn["arguments"] == {"subject": "sky", "model": {"sha256": Picture(b"pixels").digest}}
    assert drawn["work"] == {"network_calls": 1, "tokens": 16, "output_bytes": 3}
    assert composed["inputs"] == ["sky"]
    assert composed["arguments"] == {"base": {"from": "sky"}, "layers": [{"picture": {"from": "sky"}, "opacity": 0.5}]}


def test_a_plan_costs_thousands_of_token_passes_weighed_by_what_they_take():
    steps = builder()
    sky = steps.add("sky", Draw("sky"))
    assert cost_of(steps.build()) == 16 / 1000
    steps.add("all", Compose(sky, (Layer(sky, 0.5), Layer(sky, 0.5))))
    assert cost_of(steps.build()) == (16 + 2.5 * 2 * 16) / 1000
