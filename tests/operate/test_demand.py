"""plans and receipts -> the seconds of work that jobs want of each stage"""

from typing import Any

import pytest

from aiprod_components.families import make_family
from aiprod_components.plan import Plan
from deployments.api.wire import Wire
from deployments.capacity.graph import graph_of, plan_of
from deployments.demand import Rates, group, predicted_seconds, seconds_left, work_by_stage

DRAFT = {"model": "miniature", "pipeline": "ti2vid_two_stages", "size": "64x64", "num_frames": 5}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(DRAFT, wire=Wire({"miniature": make_family("miniature")}))


def receipt(step: str, seconds: float, *, cache_hit: bool = False) -> dict[str, Any]:
    return {"step": step, "run_seconds": seconds, "cache_hit": cache_hit}


def learned(plan: Plan, seconds_per_unit: float) -> Rates:
    rates, graph = Rates(), graph_of(plan)
    rates.learn(graph, [receipt(task.step, task.units * seconds_per_unit) for task in graph.tasks])
    return rates


def test_the_work_of_all_stages_is_what_the_plan_costs(plan: Plan) -> None:
    tasks = graph_of(plan).tasks
    assert sum(work_by_stage(plan).values()) == pytest.approx(sum(task.units for task in tasks))
    assert work_by_stage(plan).keys() == {task.stage for task in tasks}


def test_what_was_learned_of_a_stage_predicts_it(plan: Plan) -> None:
    predicted = predicted_seconds(plan, learned(plan, 0.01))
    assert predicted == {stage: pytest.approx(max(units * 0.01, 0.02), rel=0.2) for stage, units in work_by_stage(plan).items()}


def test_the_latest_calls_count_most(plan: Plan) -> None:
    rates = learned(plan, 0.01)
    (denoise,) = [task for task in graph_of(plan).tasks if task.stage == "denoiser"]
    for _ in range(100):
        rates.learn(graph_of(plan), [receipt(denoise.step, denoise.units * 0.05)])
    assert rates.seconds(denoise) == pytest.approx(denoise.units * 0.05, rel=0.01)


def test_a_result_that_was_only_found_teaches_nothing(plan: Plan) -> None:
    rates, graph = learned(plan, 0.01), graph_of(plan)
    before = [rates.seconds(task) for task in graph.tasks]
    rates.learn(graph, [receipt(task.step, 0.0, cache_hit=True) for task in graph.tasks])
    assert [rates.seconds(task) for task in graph.tasks] == before


def test_a_stage_that_nobody_has_seen_is_taken_to_be_as_fast_as_the_others(plan: Plan) -> None:
    rates, graph = Rates(), graph_of(plan)
    rates.learn(graph, [receipt(task.step, task.units * 0.01) for task in graph.tasks if task.stage == "denoiser"])
    (refine,) = [task for task in graph.tasks if task.stage == "refiner"]
    assert rates.seconds(refine) == pytest.approx(refine.units * 0.01)


def test_a_call_takes_at_least_the_floor_where_nothing_is_known(plan: Plan) -> None:
    assert set(predicted_seconds(plan, Rates(floor=0.5)).values()) == {0.5}


def test_what_is_done_is_no_work_any_more_and_a_step_counts_by_what_is_left_of_it(plan: Plan) -> None:
    rates, graph = learned(plan, 0.01), graph_of(plan)
    (text,) = [task.step for task in graph.tasks if task.stage == "text_encoder"]
    (denoise,) = [task.step for task in graph.tasks if task.stage == "denoiser"]
    whole = predicted_seconds(plan, rates)
    left = seconds_left(graph, rates, ended=[text], shares={denoise: 0.75})
    assert "text_encoder" not in left
    assert left["denoiser"] == pytest.approx(whole["denoiser"] / 4)
    assert left["refiner"] == whole["refiner"]


def test_jobs_with_the_same_stages_before_them_are_one_group() -> None:
    queued, refining = {"denoiser": 8.0, "refiner": 4.0}, {"refiner": 3.0}
    work = group([queued, refining, queued, {}])
    assert {(each.jobs, tuple(each.seconds.items())) for each in work} == {
        (2, (("denoiser", 16.0), ("refiner", 8.0))),
        (1, (("refiner", 3.0),)),
    }


def test_a_job_may_stand_for_others_that_were_not_read() -> None:
    (found,) = group([{"denoiser": 8.0}], each=2.5)
    assert (found.jobs, found.seconds) == (2.5, {"denoiser": 20.0})
