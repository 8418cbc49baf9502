"""settings and promises -> the fewest replicas that keep them, what they cost, what breaks first"""

from typing import Any

import numpy as np
import pytest

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.ltx2 import unserved_ltx2
from deployments.capacity.graph import graphs_of
from deployments.capacity.model import Line, Model, Visit
from deployments.capacity.plan import NEVER, Plan, Search, excerpt, make_plan, smallest
from deployments.capacity.pools import Pools, hourly, packed
from deployments.capacity.report import report_of
from deployments.capacity.served import Served
from deployments.capacity.setting import Setting, work_of
from deployments.capacity.simulate import simulate
from deployments.capacity.slo import parse_slo
from deployments.capacity.times import Overhead
from deployments.capacity.traffic import Columns, Traffic
from tests.capacity.lines import arrivals, tandem
from tests.capacity.settings import SECONDS, STAGES, cpu_pools, gpu_pools, setting, times, traffic

MONOLITH = {"accelerator": "H200", "price_per_hour": 6.0, "memory_gb": 141}
NOBODY = Served({}, {}, {}, 2)


def planned(slo: str = "p95=12s", **options: Any) -> Plan:
    return make_plan(setting(**options), parse_slo(slo))


def holds(of: Setting, slo: str, replicas: tuple[int, ...]) -> bool:
    search = Search(of.model(), parse_slo(slo), most=[NEVER] * len(replicas))
    return search.judge(replicas, of.traffic.columns(), of.traffic.seconds).holds


@pytest.mark.parametrize("slo", ["p95=8s", "p95=12s", "p95=60s", "p50=8s,p99=20s"])
def test_one_replica_fewer_anywhere_breaks_the_promise(slo: str) -> None:
    plan = planned(slo)
    assert plan.verdict.holds and holds(plan.setting, slo, plan.replicas)
    for place, count in enumerate(plan.replicas):
        fewer = (*plan.replicas[:place], count - 1, *plan.replicas[place + 1 :])
        assert count == 1 or not holds(plan.setting, slo, fewer), plan.setting.deployments[place]


def test_a_tighter_promise_takes_more_replicas() -> None:
    assert sum(planned("p95=8s").replicas) > sum(planned("p95=20s").replicas)


def test_no_stage_is_given_more_work_than_it_can_do_however_patient_the_promise() -> None:
    plan = planned("p95=1h")
    assert [stage["utilisation"] < 1 for stage in report_of(plan, NOBODY)["stages"]] == [True] * len(STAGES)
    assert plan.by_stage["denoiser"] >= len(plan.verdict.outcome.columns) / 600 * SECONDS["denoiser"]


def test_a_promise_that_the_work_alone_breaks_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequestError, match=r"^slo: p95 is 7\.2 s, above 5 s where no video waits.*make miniature\.denoiser faster"):
        planned("p95=5s")
    with pytest.raises(InvalidRequestError, match="promise a latency"):
        planned("errors=1%")


def test_a_pool_of_twice_the_speed_takes_half_the_replicas() -> None:
    fast = gpu_pools().model_dump(mode="json")
    for pool in fast["pools"]:
        pool["speed"] = 2.0
    slow, quick = planned("p95=1h"), planned("p95=1h", pools=Pools.model_validate(fast))
    assert slow.by_stage["denoiser"] == pytest.approx(2 * quick.by_stage["denoiser"], abs=1)


def test_what_breaks_first_is_the_stage_that_is_nearest_to_its_end() -> None:
    steady = traffic(arrival={"kind": "at", "seconds": [second / 0.74 for second in range(444)]})
    plan = planned("p95=8s", of=steady)
    # 2.96 seconds of denoising a second take three replicas, which have nothing to spare; the others have a quarter.
    assert (plan.by_stage["denoiser"], plan.by_stage["refiner"], plan.by_stage["vae_decoder"]) == (3, 2, 1)
    assert plan.breaks.line == "miniature.denoiser" and plan.breaks.factor == pytest.approx(1 / 0.987, rel=0.015)
    assert plan.breaks.faults


def test_what_never_breaks_is_told_as_far_as_it_was_tried() -> None:
    plan = planned("p95=1h", of=traffic(arrival={"kind": "at", "seconds": [0.0]}))
    assert plan.breaks.factor is None and plan.breaks.tried == 16.0 and set(plan.replicas) == {1}


def test_costs_are_of_whole_gpus_for_as_long_as_the_traffic_lasts() -> None:
    plan = planned("p95=12s")
    counts = plan.by_stage
    gpus = {"small": 1, "denoise": counts["denoiser"], "refine": counts["refiner"], "decode": -(-counts["vae_decoder"] // 2)}
    told = report_of(plan, NOBODY)
    assert {pool["name"]: pool["count"] for pool in told["pools"]} == gpus
    an_hour = 1.0 + 4.0 * gpus["denoise"] + 3.0 * gpus["refine"] + gpus["decode"]
    assert told["cost_per_hour"] == plan.cost_per_hour == pytest.approx(an_hour)
    assert told["cost_per_1000_videos"] == pytest.approx(an_hour / 6 * 1000 / told["arrivals"])


def test_monolith_replicas_are_planned_for_the_same_traffic() -> None:
    plan = planned("p95=12s", pools=gpu_pools(monolith=MONOLITH))
    assert plan.monolith is not None and plan.monolith.verdict is not None and plan.monolith.verdict.holds
    told = report_of(plan, NOBODY)["monolith"]
    # 7.2 seconds of work a second, at least.
    assert told["replicas"] >= 7.2 and told["cost_per_hour"] == 6.0 * told["replicas"]
    assert told["pools_cost_of_it"] == pytest.approx(plan.cost_per_hour / told["cost_per_hour"])


def test_a_monolith_whose_card_is_too_small_is_told() -> None:
    small = gpu_pools(monolith={**MONOLITH, "memory_gb": 80}).model_dump(mode="json")
    small["pools"][1]["stages"]["denoiser"]["memory_gb"] = 81
    told = report_of(planned(pools=Pools.model_validate(small)), NOBODY)["monolith"]
    assert told["cannot"] == "the weights of all stages are 81 GB, and one H200 has 80"


def test_stages_on_shared_cores_are_planned_with_what_they_take_from_each_other() -> None:
    calm = planned("p95=1min", of=traffic(per_second=0.02), pools=cpu_pools())
    assert calm.verdict.holds and calm.cost_per_hour == 0.5
    # On two cores two videos at once are as long as one after the other.
    assert calm.verdict.outcome.quantile(1.0) > 7.2


def test_what_shared_cores_cannot_keep_is_told_and_planned_as_well_as_may_be() -> None:
    plan = planned("p95=10s", of=traffic(per_second=0.13), pools=cpu_pools())
    assert not plan.verdict.holds and plan.breaks.factor == 1.0
    assert all(count <= 2 for count in plan.replicas)


def test_long_traffic_is_searched_at_its_densest_and_checked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.capacity.plan.EXCERPT", 300)
    busy = traffic(seconds=3000)
    part = excerpt(busy.columns())
    assert len(part) == 300 and part.at[0] == 0 and 300 / part.at[-1] > len(busy.columns()) / 3000
    plan = planned("p95=9s", of=busy)
    assert plan.verdict.holds and len(plan.verdict.outcome.columns) == len(busy.columns())


def two_kinds(cheap: list[float], long: list[float]) -> Columns:
    """Jobs of the first line, and of the second."""
    at = np.array([*cheap, *long])
    kind = np.array([0] * len(cheap) + [1] * len(long))
    order = np.argsort(at, kind="stable")
    return Columns(at[order], kind[order], np.full(len(at), np.inf))


def searching(slo: str, *, seconds: tuple[float, float] = (0.01, 60.0)) -> Search:
    lines = Line("cheap"), Line("long")
    model = Model(lines, tuple((Visit(line, takes),) for line, takes in enumerate(seconds)), (0, 0))
    return Search(model, parse_slo(slo), most=[NEVER] * 2)


def test_what_comes_outside_the_densest_part_has_its_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.capacity.plan.EXCERPT", 300)
    columns = two_kinds([second / 150 for second in range(300)], [10.0 + 10 * number for number in range(200)])
    search = searching("p95=90s")
    replicas = search.fewest(columns, seconds=2010, prices=[1.0, 1.0])
    # A job of 60 s every 10 s keeps six busy.
    assert replicas == (1, 6) and search.judge(replicas, columns, 2010).holds


def test_a_burst_is_not_taken_for_the_traffic_of_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.capacity.plan.EXCERPT", 300)
    burst = two_kinds([second / 150 for second in range(299)], [1.0, *(10.0 + 10 * number for number in range(199))])
    search = searching("p95=90s")
    assert search.bound(burst, 2010) == (1, 6)
    assert search.fewest(burst, seconds=2010, prices=[1.0, 1.0]) == (1, 6)


def test_a_densest_part_that_is_late_by_itself_does_not_refuse_the_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.capacity.plan.EXCERPT", 20)
    columns = two_kinds([10.0 + number for number in range(980)], [number / 10 for number in range(20)])
    assert searching("p95=30s").fewest(columns, seconds=1000, prices=[1.0, 1.0]) == (1, 2)


def test_a_cancelled_job_is_work_until_then() -> None:
    overhead = Overhead(before=0.5, held=0.5)
    model = tandem([4.0, 2.0, 1.0], [NEVER] * 3, hop=0.25, overhead=overhead)
    columns = arrivals([0.0, 10.0, 20.0, 30.0], cancelled_at={1: 10.5, 2: 22.25, 3: 36.5})
    assert work_of(model, columns) == pytest.approx([4 + 0 + 1 + 4, 2 + 0 + 0 + 1, 1])
    assert work_of(model, columns) == pytest.approx(simulate(model, columns).busy.tolist())


def test_jobs_that_are_cancelled_early_take_few_replicas() -> None:
    lines = (Line("long"),)
    search = Search(Model(lines, ((Visit(0, 60.0),),), (0,)), parse_slo("p95=120s"), most=[NEVER])
    at = np.arange(0.0, 3000.0, 5.0)
    columns = Columns(at, np.zeros(len(at), dtype=np.int64), np.where(np.arange(len(at)) % 10, at + 0.6, np.inf))
    # A tenth works 60 s, the others 0.6 s: 1.3 seconds of work a second.
    assert search.bound(columns, 3000) == (2,)
    assert search.fewest(columns, seconds=3000, prices=[1.0]) <= (3,)


def test_the_smallest_that_does_is_found() -> None:
    assert [smallest(lambda count, bound=bound: count >= bound, 1, 9) for bound in range(1, 10)] == list(range(1, 10))


def test_shares_are_packed_as_ray_packs_them() -> None:
    assert packed([]) == 0
    assert packed([0.5, 0.5, 0.5]) == 2
    assert packed([0.9, 0.1, 0.9, 0.1]) == 2
    assert packed([0.7, 0.3, 0.3, 0.7]) == 2
    assert packed([2, 1, 0.1]) == 4
    assert packed([0.1] * 10) == 1


def test_an_hour_costs_what_all_pools_cost() -> None:
    assert hourly(gpu_pools().pools, {"denoiser": 2, "refiner": 1, "vae_decoder": 3, "text_encoder": 1, "upsampler": 1}) == 8 + 3 + 2 + 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stages": {}}, "stages"),
        ({"stages": {"denoiser": {"cpus": 1}}}, "does not fit this pool; say how many gpus"),
        ({"stages": {"denoiser": {"gpus": 1.5}}}, "at most 1 or whole, got 1.5"),
        ({"cores": 2}, "accelerator, or cores that its stages share; say one of the two"),
        ({"stages": {"denoiser": {"gpus": 1}, "refiner": {"gpus": 1}}}, "stage refiner is in two pools"),
    ],
)
def test_pools_that_make_no_sense_are_refused(change: dict[str, Any], told: str) -> None:
    pools = gpu_pools().model_dump(mode="json")
    pools["pools"][1] |= change
    with pytest.raises(ValueError, match=told):
        Pools.model_validate(pools)


def test_a_stage_without_a_pool_or_a_time_is_named() -> None:
    pools = gpu_pools().model_dump(mode="json")
    del pools["pools"][2]
    with pytest.raises(InvalidRequestError, match="no pool has stage refiner"):
        planned(pools=Pools.model_validate(pools))
    slow = times().model_dump(mode="json")
    del slow["stages"]["miniature"]["upsampler"]
    with pytest.raises(InvalidRequestError, match=r"stages\.miniature\.upsampler is missing"):
        planned(at=type(times()).model_validate(slow))


def test_a_request_that_the_server_would_refuse_is_refused_by_its_class() -> None:
    bad = Traffic.model_validate(
        {"name": "x", "seconds": 9, "classes": [{"name": "a", "request": {"num_frames": 6}, "arrival": {"kind": "at", "seconds": [0]}}]}
    )
    with pytest.raises(InvalidRequestError, match=r"classes\.0\.request would be refused: num_frames must be 1 \+ a multiple of 4"):
        planned(of=bad)


def test_ltx2_is_planned_without_its_folder() -> None:
    request = {"model": "ltx2", "pipeline": "distilled", "size": "1280x704", "num_frames": 121}
    each = {"name": "a", "request": request, "arrival": {"kind": "at", "seconds": [0]}}
    asked = Traffic.model_validate({"name": "x", "seconds": 9, "classes": [each]})
    (graph,) = graphs_of(asked, {"ltx2": unserved_ltx2("2.3", "distilled")})
    units = {task.stage: task.units for task in graph.tasks}
    assert (units["denoiser"], units["refiner"], units["vae_decoder"]) == (8 * 3646, 3 * 14206, 4 * 14080)
