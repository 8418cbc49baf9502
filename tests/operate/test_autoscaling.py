"""live work, replicas and bounds -> replicas for each stage, by our policy and as Serve calls it"""

import threading
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.autoscaling_policy import _apply_app_level_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.autoscaling import Stage, WorkPolicy, faded, needs_of, replicas_for
from deployments.live_work import Group, LiveWork, LiveWorkReader, from_text, to_text
from deployments.scaling_args import POLICY

STAGES = ("text_encoder", "denoiser", "refiner", "vae_decoder")
EACH = {"text_encoder": 0.5, "denoiser": 16.0, "refiner": 8.0, "vae_decoder": 4.0}


def jobs(count: int, *, at: str = "text_encoder") -> Group:
    """So many, which are at a stage and still have to go through those after it."""
    left = STAGES[STAGES.index(at) :]
    return Group(count, {stage: count * EACH[stage] for stage in left})


def wanted(work: LiveWork, *, now: int = 0, most: int | Mapping[str, int] = 100, least: int = 0, held: float = 0.0) -> dict[str, int]:
    bounds = dict.fromkeys(STAGES, most) if isinstance(most, int) else most
    stages = {name: Stage(now, least, bounds[name], held) for name in STAGES}
    return {name: count for name, (count, _) in replicas_for(work, stages, horizon=32).items()}


def test_stages_are_scaled_in_the_ratio_of_their_work() -> None:
    assert wanted((jobs(16),)) == {"text_encoder": 1, "denoiser": 8, "refiner": 4, "vae_decoder": 2}


def test_a_stage_that_is_starved_by_a_slow_one_keeps_its_replicas() -> None:
    before = wanted((jobs(16, at="denoiser"),), now=4)
    assert before["refiner"] == 4
    stuck = tuple(Group(16, {**jobs(16, at="denoiser").seconds, "denoiser": left}) for left in (200.0, 100.0, 3.0))
    assert [wanted((each,), now=4)["refiner"] for each in stuck] == [4, 4, 4]


def test_where_a_stage_may_not_grow_those_after_it_are_not_scaled_for_what_it_cannot_deliver() -> None:
    bounds = dict.fromkeys(STAGES, 100) | {"denoiser": 2}
    assert wanted((jobs(16),), most=bounds) == {"text_encoder": 1, "denoiser": 2, "refiner": 1, "vae_decoder": 1}


def test_jobs_past_a_narrow_stage_do_not_wait_for_those_before_it() -> None:
    bounds = dict.fromkeys(STAGES, 100) | {"denoiser": 2}
    alone = wanted((jobs(16, at="refiner"),), most=bounds)["refiner"]
    crowd = wanted((jobs(500), jobs(16, at="refiner")), most=bounds)["refiner"]
    assert alone == 4 and crowd >= alone


def test_no_stage_is_wanted_beyond_its_bounds() -> None:
    bounds = {"text_encoder": 1, "denoiser": 5, "refiner": 3, "vae_decoder": 2}
    needs = needs_of((jobs(300), jobs(200, at="refiner"), jobs(90, at="vae_decoder")), bounds, horizon=32)
    assert all(needs[stage] <= most + 1e-9 for stage, most in bounds.items())
    assert needs["refiner"] == pytest.approx(3)
    assert needs["vae_decoder"] == pytest.approx(2)
    assert wanted((), least=2) == dict.fromkeys(STAGES, 2)


def test_a_stage_never_has_more_replicas_than_jobs() -> None:
    long = Group(1, {"denoiser": 600.0, "vae_decoder": 100.0})
    assert wanted((long,)) == {"text_encoder": 0, "denoiser": 1, "refiner": 0, "vae_decoder": 1}


def test_only_stages_that_no_live_job_needs_go_to_zero() -> None:
    assert wanted((jobs(1, at="refiner"),), now=1) == {"text_encoder": 0, "denoiser": 0, "refiner": 1, "vae_decoder": 1}
    assert wanted((), now=3) == dict.fromkeys(STAGES, 0)


def test_one_queued_job_starts_every_stage_that_it_will_need() -> None:
    assert wanted((jobs(1),)) == dict.fromkeys(STAGES, 1)


def test_a_need_that_wavers_around_a_whole_number_moves_nothing() -> None:
    counts, replicas = [], 4
    for denoising in (126.0, 129.0, 127.0, 130.0, 126.5):
        replicas = wanted((Group(50, {"denoiser": denoising}),), now=replicas)["denoiser"]
        counts.append(replicas)
    assert counts == [4] * 5


def test_a_wish_that_falls_fades_and_does_not_come_down_at_once() -> None:
    stage, counts = Stage(8, 0, 100, 8.0), []
    for _ in range(4):
        (count, held) = replicas_for((jobs(1, at="refiner"),), {"refiner": stage}, horizon=32)["refiner"]
        counts.append(count)
        stage = Stage(count, 0, 100, faded(held, 20.0, smoothing=30.0))
    assert counts == [8, 4, 2, 1]
    assert faded(8.0, 0.0, smoothing=0.0) == 0.0


# As Serve calls it.


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What stands in Ray's key-value store."""
    store: dict[str, bytes] = {}
    monkeypatch.setattr("deployments.head_store.get", store.get)
    return store


def tell(store: dict[str, bytes], work: LiveWork, *, at: float = 0.0) -> None:
    store["live_work/ltx2"] = to_text(work, at=at).encode()


def contexts(
    *, running: int = 0, target: int = 0, ongoing: float = 0.0, state: Mapping[Any, dict[str, Any]] | None = None
) -> dict[Any, Any]:
    known = state or {}
    config = AutoscalingConfig(min_replicas=0, max_replicas=8, upscale_delay_s=0, downscale_delay_s=0)
    ids = [DeploymentID(name=stage, app_name="ltx2") for stage in STAGES]
    shared: dict[str, Any] = {"app_name": "ltx2", "current_num_replicas": running, "target_num_replicas": target, "config": config}
    bounds: dict[str, Any] = {"capacity_adjusted_min_replicas": 0, "capacity_adjusted_max_replicas": 8, "total_num_requests": ongoing}
    return {
        each: SimpleNamespace(**shared, **bounds, deployment_name=each.name, policy_state=known.get(each, {}), current_time=time.time())
        for each in ids
    }


def decided(policy: Callable[..., Any], given: dict[Any, Any]) -> dict[str, int]:
    return {each.name: count for each, count in _apply_app_level_autoscaling_config(policy)(given)[0].items()}


def eventually(policy: WorkPolicy, expected: dict[str, int], **more: Any) -> bool:
    """Its thread reads once a second, and the first time at once."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if decided(policy, contexts(**more)) == expected:
            return True
        time.sleep(0.02)
    return False


def test_serve_makes_the_policy_of_its_name_and_arguments_and_takes_what_it_says(told: dict[str, bytes]) -> None:
    tell(told, (jobs(16),))
    made = AutoscalingPolicy(policy_function=POLICY, policy_kwargs={"horizon_seconds": 32})
    sent = AutoscalingPolicy.from_serialized_policy_def(
        {"policy_function": POLICY, "policy_kwargs": made.policy_kwargs}, made.get_serialized_policy_def() or b""
    )
    policy: Any = sent.get_policy()(**sent.policy_kwargs)
    assert eventually(policy, {"text_encoder": 1, "denoiser": 8, "refiner": 4, "vae_decoder": 2})


def test_what_a_policy_holds_comes_back_to_it_and_fades(told: dict[str, bytes]) -> None:
    policy = WorkPolicy(horizon_seconds=32, smoothing_seconds=1000)
    tell(told, (jobs(16),))
    assert eventually(policy, {"text_encoder": 1, "denoiser": 8, "refiner": 4, "vae_decoder": 2})
    state = policy(contexts())[1]
    tell(told, (), at=1.0)
    policy = WorkPolicy(horizon_seconds=32, smoothing_seconds=1000)
    assert eventually(policy, {"text_encoder": 1, "denoiser": 8, "refiner": 4, "vae_decoder": 2}, state=state, running=8, target=8)


def test_until_something_is_told_serves_own_count_of_requests_decides(told: dict[str, bytes]) -> None:
    assert decided(WorkPolicy(), contexts(running=2, target=2, ongoing=8.0)) == dict.fromkeys(STAGES, 4)


def test_what_is_stale_is_not_believed() -> None:
    texts = [to_text((jobs(1),), at=1.0).encode()]
    reader = LiveWorkReader("ltx2", period=0.01, stale_after=0.3, fetch=lambda family: texts[0])
    wait_for(lambda: reader.read() is not None)
    wait_for(lambda: reader.read() is None)  # it stands there still, but nobody writes it any more
    texts[0] = to_text((jobs(1),), at=2.0).encode()
    wait_for(lambda: reader.read() == (jobs(1),))


def test_a_store_that_hangs_holds_up_no_decision() -> None:
    gate = threading.Event()
    reader = LiveWorkReader("ltx2", period=0.01, stale_after=1.0, fetch=lambda family: b"" if gate.wait(30) else None)
    began = time.monotonic()
    assert reader.read() is None
    assert time.monotonic() - began < 0.1
    gate.set()


def test_a_thread_ends_with_its_policy() -> None:
    reader = LiveWorkReader("gone", period=0.01, stale_after=1.0, fetch=lambda family: None)
    assert any(thread.name == "live-work-gone" for thread in threading.enumerate())
    del reader
    wait_for(lambda: not any(thread.name == "live-work-gone" for thread in threading.enumerate()))


def test_live_work_is_the_same_after_its_way() -> None:
    work = (jobs(3), jobs(2, at="refiner"))
    assert from_text(to_text(work, at=1.0)) == work


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
