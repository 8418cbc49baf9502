"""what simulated jobs took -> the stage times that they were simulated with"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.capacity.calibrate import calibrate_from_jobs, calibrate_from_result
from deployments.capacity.fitting import Sample, line_through, stage_time
from deployments.capacity.model import Model
from deployments.capacity.pools import Pools
from deployments.capacity.served import Served
from deployments.capacity.setting import Setting
from deployments.capacity.simulate import simulate
from deployments.capacity.times import Contention, Hop, Overhead, StageTime
from deployments.capacity.traffic import Traffic
from deployments.work import graph_of
from tests.capacity.settings import DRAFT, STAGES, cpu_pools, gpu_pools, setting, times

FAMILY = make_family("miniature")
SERVED = Served({}, {"miniature": FAMILY}, {}, 2)
# Some of each alone, then all at once.
MOMENTS = [*range(0, 400, 40), *(400 + 3.1 * number for number in range(40))]
ROW = {"class": "small", "at": 0, "latency": 1, "status": "completed"}
LINE = {"step": "draft", "stage": "denoiser", "queued_seconds": 0.1}
BIG = {**DRAFT, "size": "128x128"}


def trace(moments: Sequence[float] = MOMENTS) -> Traffic:
    """The second class comes half a pause later."""
    classes = [
        {"name": "small", "request": DRAFT, "arrival": {"kind": "at", "seconds": list(moments)}},
        {"name": "big", "request": BIG, "arrival": {"kind": "at", "seconds": [20 + each for each in moments]}},
    ]
    return Traffic.model_validate({"name": "trace", "seconds": 3000, "classes": classes})


def nobody(video: str) -> list[dict[str, Any]]:
    raise AssertionError(f"{video} has its stages in its row")


def measured(traffic: Traffic, pools: Pools, *, exponent: float) -> dict[str, Any]:
    """A load test as it would be if the model were the world. Steps of videos that met are all stretched alike, to be as long in all."""
    per_unit = {stage: {"seconds_per_unit": 0.002, "seconds_per_call": 0.1} for stage in STAGES}
    overhead = Overhead(before=0.05, held=0.08, after=0.07)
    world = times(stages={"miniature": per_unit}, contention=Contention(exponent=exponent), hop=Hop(seconds=0.05), overhead=overhead)
    whole = setting(of=traffic, pools=pools, at=world)
    model, columns = whole.model([1] * len(whole.deployments)), traffic.columns()
    outcome = simulate(model, columns)
    alone = np.array([sum(visit.seconds for visit in visits) for visits in model.jobs])[columns.kind]
    latency = outcome.done - columns.at
    met = ~np.isclose(latency, alone + 0.2 + 5 * 0.05)
    stretch = np.where(met, (outcome.busy.sum() - alone[~met].sum()) / max(alone[met].sum(), 1e-9), 1.0)
    return {"rows": [_row(whole, model, int(kind), *of) for kind, *of in zip(columns.kind, columns.at, latency, stretch, strict=True)]}


def _row(whole: Setting, model: Model, kind: int, at: float, latency: float, stretch: float) -> dict[str, Any]:
    steps = zip(whole.graphs[kind].tasks, model.jobs[kind], strict=True)
    lines = [
        {"step": task.step, "stage": task.stage, "queued_seconds": 0.05, "run_seconds": visit.seconds * stretch} for task, visit in steps
    ]
    return {"class": whole.traffic.classes[kind].name, "at": float(at), "latency": float(latency), "status": "completed", "stages": lines}


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.4])
def test_times_hops_overhead_and_contention_are_found_again(exponent: float) -> None:
    traffic = trace()
    found = calibrate_from_result(measured(traffic, cpu_pools(), exponent=exponent), traffic, SERVED, cpu_pools(), stages_of=nobody)
    assert found.used == len(MOMENTS) * 2 and found.passed_over == 0
    denoiser = found.times.of("miniature", "denoiser")
    assert len(denoiser.points) == 2
    assert all(seconds == pytest.approx(0.1 + 0.002 * units, rel=0.001) for units, seconds in denoiser.points)
    assert found.times.hop.seconds == pytest.approx(0.05, rel=0.01)
    assert found.times.overhead.before + found.times.overhead.held + found.times.overhead.after == pytest.approx(0.2, rel=0.02)
    assert found.times.contention.exponent == pytest.approx(exponent, abs=0.02)


def test_where_no_two_videos_met_cores_are_taken_to_be_shared_fairly() -> None:
    traffic = trace(moments=[100.0 * number for number in range(20)])
    found = calibrate_from_result(measured(traffic, cpu_pools(), exponent=1.4), traffic, SERVED, cpu_pools(), stages_of=nobody)
    assert "40 of 40 requests" in found.times.source
    assert found.times.contention.exponent == 1.0


def test_without_shared_cores_every_video_tells_and_nothing_slows_down() -> None:
    traffic = trace()
    found = calibrate_from_result(measured(traffic, cpu_pools(), exponent=0.0), traffic, SERVED, gpu_pools(), stages_of=nobody)
    assert found.times.contention.exponent == 1.0
    assert "100 of 100 requests of trace" in found.times.source


def test_receipts_that_are_not_in_the_rows_are_asked_for() -> None:
    traffic, asked = trace(), list[str]()
    result = measured(traffic, cpu_pools(), exponent=1.0)
    lines = {f"video_{number}": row.pop("stages") for number, row in enumerate(result["rows"])}
    for number, row in enumerate(result["rows"]):
        row["id"] = f"video_{number}"

    def stages_of(video: str) -> list[dict[str, Any]]:
        asked.append(video)
        return lines[video]

    assert calibrate_from_result(result, traffic, SERVED, cpu_pools(), stages_of=stages_of).used == 100
    assert asked == list(lines)


def test_what_was_found_in_the_cache_says_nothing_of_its_stage() -> None:
    traffic = trace()
    result = measured(traffic, gpu_pools(), exponent=1.0)
    for row in result["rows"][::2]:
        row["stages"] = [{**line, "run_seconds": 0.0, "cache_hit": True} for line in row["stages"]]
    found = calibrate_from_result(result, traffic, SERVED, gpu_pools(), stages_of=nobody)
    assert min(seconds for _, seconds in found.times.of("miniature", "denoiser").points) > 0.05


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({}, "rows must have at, class, latency, status"),
        ({"rows": [{"class": "small"}]}, "rows must have at, class, latency, status"),
        ({"rows": [{"class": "new", "at": 0, "latency": 1, "status": "completed"}]}, "class 'new' is none of the traffic's: small, big"),
        ({"rows": [{"class": "small", "at": 0, "latency": 1, "status": "completed"}]}, "neither stages nor ids"),
        ({"rows": [{**ROW, "at": "soon"}]}, r"rows\.0\.at must be a number of seconds, got 'soon'"),
        ({"rows": [{**ROW, "latency": None}]}, r"rows\.0\.latency must be a number of seconds, got None"),
        (
            {"rows": [{**ROW, "stages": [{**LINE, "step": "music"}]}]},
            r"rows\.0\.stages\.0\.step is 'music', which the config's plan",
        ),
        ({"rows": [{**ROW, "stages": [LINE]}]}, r"rows\.0\.stages\.0\.run_seconds must be a number of seconds, got None"),
        ({"rows": [{**ROW, "class": ["small"], "stages": [LINE]}]}, r"class \['small'\] is none of the traffic's"),
        ({"rows": [{**ROW, "id": None}]}, r"rows\.0 has neither stages nor the id of its video"),
        ({"rows": [{"class": "small", "at": 0, "latency": 1, "status": "failed"}]}, "was alone; calibrate with a traffic that begins with"),
    ],
)
def test_a_result_that_tells_too_little_is_refused(result: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        calibrate_from_result(result, trace(), SERVED, cpu_pools(), stages_of=nobody)


def job(**fields: Any) -> dict[str, Any]:
    """As the API shows a video that was made with what is said."""
    body = {"model": "miniature", "pipeline": "distilled", "prompt": "a ball", "size": "64x64", "num_frames": 5, "fps": 16.0, "seed": 1}
    asked = Wire({"miniature": FAMILY}).read(Body(body | fields, is_json=True))
    graph = graph_of(asked.plan)
    lines = [{"step": task.step, "stage": task.stage, "queued_seconds": 0.02, "run_seconds": 0.001 * task.units} for task in graph.tasks]
    return {**body, "status": "completed", "stages": lines, "cost": round(sum(task.units for task in graph.tasks) / 1000, 3)}


def test_a_servers_videos_tell_what_its_stages_take() -> None:
    jobs = [job(), {**job(), "status": "failed"}, job(pipeline="ti2vid_two_stages") | {"pipeline": "ti2vid_two_stages"}]
    found = calibrate_from_jobs(jobs, SERVED, source="a test")
    assert (found.used, found.passed_over) == (2, 1)
    assert found.times.of("miniature", "denoiser").seconds(5000.0) == pytest.approx(5.0)
    assert found.times.hop.seconds == 0.02


def test_a_video_made_with_settings_that_are_not_shown_is_passed_over() -> None:
    hidden = job(pipeline="ti2vid_two_stages", num_inference_steps=7) | {"pipeline": "ti2vid_two_stages"}
    assert calibrate_from_jobs([job(), hidden], SERVED, source="a test").used == 1
    with pytest.raises(InvalidRequestError, match="of 1 videos none is finished and told of whole"):
        calibrate_from_jobs([hidden], SERVED, source="a test")


def test_a_line_is_fitted_where_amounts_differ_and_a_share_where_they_do_not() -> None:
    assert line_through([Sample(10, 3.0), Sample(20, 5.0), Sample(30, 7.0)]) == pytest.approx((1.0, 0.2))
    assert line_through([Sample(10, 3.0), Sample(11, 3.3)]) == pytest.approx((0.0, 0.3))
    assert line_through([Sample(10, 1.0), Sample(100, 20.0)]) == pytest.approx((0.0, 21 / 110))
    assert line_through([Sample(10, 5.0), Sample(100, 4.0)]) == (4.5, 0.0)
    assert line_through([Sample(0, 2.0), Sample(0, 4.0)]) == (3.0, 0.0)


def test_scatter_is_found() -> None:
    rng = np.random.default_rng(1)
    samples = [Sample(units, 0.01 * units * np.exp(rng.normal(-0.02, 0.2))) for units in (100.0, 300.0) for _ in range(500)]
    found = stage_time(samples)
    assert found.spread == pytest.approx(0.2, rel=0.05)
    assert found.seconds(300) == pytest.approx(3.0, rel=0.03) and found.seconds(200) == pytest.approx(2.0, rel=0.03)
    assert stage_time(samples[:1]).spread == 0.0


def test_between_points_time_is_on_a_line_and_beyond_them_in_proportion() -> None:
    found = stage_time([Sample(100, 2.0), Sample(105, 2.0), Sample(300, 3.0)])
    assert found.points == ((102.5, 2.0), (300.0, 3.0))
    assert [found.seconds(units) for units in (51.25, 102.5, 201.25, 300, 600)] == pytest.approx([1.0, 2.0, 2.5, 3.0, 6.0])
    with pytest.raises(ValueError, match="must rise"):
        StageTime(points=((2.0, 1.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match="say points, or"):
        StageTime(points=((2.0, 1.0),), seconds_per_call=1.0)
