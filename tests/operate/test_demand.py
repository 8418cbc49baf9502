"""plans and receipts -> the seconds of work that jobs want of each stage"""

from typing import Any

import pytest

from aiprod_components.families import make_family
from deployments.api.wire import Wire
from deployments.capacity.graph import plan_of
from deployments.demand import Rates, group, seconds_left
from deployments.work import Task, from_text, graph_of, to_text

DRAFT = {"model": "miniature", "pipeline": "ti2vid_two_stages", "size": "64x64", "num_frames": 5}


@pytest.fixture(scope="module")
def tasks() -> tuple[Task, ...]:
    return graph_of(plan_of(DRAFT, wire=Wire({"miniature": make_family("miniature")}))).tasks


def receipt(step: str, seconds: float, *, cache_hit: bool = False) -> dict[str, Any]:
    return {"step": step, "run_seconds": seconds, "cache_hit": cache_hit}


def learned(tasks: tuple[Task, ...], seconds_per_unit: float) -> Rates:
    rates = Rates()
    rates.learn(tasks, [receipt(task.step, task.units * seconds_per_unit) for task in tasks])
    return rates


def test_what_was_learned_of_a_stage_predicts_it(tasks: tuple[Task, ...]) -> None:
    units: dict[str, float] = {}
    for task in tasks:
        units[task.stage] = units.get(task.stage, 0.0) + task.units
    predicted = seconds_left(tasks, learned(tasks, 0.01))
    assert predicted == {stage: pytest.approx(max(amount * 0.01, 0.02), rel=0.2) for stage, amount in units.items()}


def test_the_latest_calls_count_most(tasks: tuple[Task, ...]) -> None:
    rates = learned(tasks, 0.01)
    (denoise,) = [task for task in tasks if task.stage == "denoiser"]
    for _ in range(100):
        rates.learn(tasks, [receipt(denoise.step, denoise.units * 0.05)])
    assert rates.seconds(denoise) == pytest.approx(denoise.units * 0.05, rel=0.01)


def test_a_result_that_was_only_found_teaches_nothing(tasks: tuple[Task, ...]) -> None:
    rates = learned(tasks, 0.01)
    before = [rates.seconds(task) for task in tasks]
    rates.learn(tasks, [receipt(task.step, 0.0, cache_hit=True) for task in tasks])
    assert [rates.seconds(task) for task in tasks] == before


def test_a_stage_that_nobody_has_seen_is_taken_to_be_as_fast_as_the_others(tasks: tuple[Task, ...]) -> None:
    rates = Rates()
    rates.learn(tasks, [receipt(task.step, task.units * 0.01) for task in tasks if task.stage == "denoiser"])
    (refine,) = [task for task in tasks if task.stage == "refiner"]
    assert rates.seconds(refine) == pytest.approx(refine.units * 0.01)


def test_a_call_takes_at_least_the_floor_where_nothing_is_known(tasks: tuple[Task, ...]) -> None:
    assert set(seconds_left(tasks, Rates(floor=0.5)).values()) == {0.5}


def test_what_is_done_is_no_work_any_more_and_a_step_counts_by_what_is_left_of_it(tasks: tuple[Task, ...]) -> None:
    rates = learned(tasks, 0.01)
    (text,) = [task.step for task in tasks if task.stage == "text_encoder"]
    (denoise,) = [task.step for task in tasks if task.stage == "denoiser"]
    whole = seconds_left(tasks, rates)
    left = seconds_left(tasks, rates, ended=[text], shares={denoise: 0.75})
    assert "text_encoder" not in left
    assert left["denoiser"] == pytest.approx(whole["denoiser"] / 4)
    assert left["refiner"] == whole["refiner"]


def test_jobs_with_the_same_stages_before_them_are_one_group() -> None:
    queued, refining = {"denoiser": 8.0, "refiner": 4.0}, {"refiner": 3.0}
    work = group([(1, queued), (1, refining), (2, queued), (1, {})])
    assert {(each.jobs, tuple(each.seconds.items())) for each in work} == {
        (3, (("denoiser", 24.0), ("refiner", 12.0))),
        (1, (("refiner", 3.0),)),
    }


def test_a_job_s_row_keeps_what_is_needed_to_tell_what_is_left(tasks: tuple[Task, ...]) -> None:
    plan = plan_of(DRAFT, wire=Wire({"miniature": make_family("miniature")}))
    rates, kept = learned(tasks, 0.01), from_text("miniature", to_text(graph_of(plan)))
    assert seconds_left(kept, rates) == seconds_left(tasks, rates)
