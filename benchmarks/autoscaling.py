"""one burst trace, LTX-2's computed stage times and cold starts -> replica-seconds and latency by policy -> results/autoscaling.json

python -m benchmarks.autoscaling

Policies are called as Serve calls them, once a second, by its own wrappers, with a clock of the simulation. Serve's count of a stage's
ongoing requests is that of the steps that claimed jobs have before them: a dispatcher sends all steps of a plan at once.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import ray.serve.autoscaling_policy as serve_policies
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from aiprod_components.families.ltx2 import unserved_ltx2
from benchmarks.elastic import Elastic, Line
from benchmarks.measuring import RESULTS, ROOT, circumstances
from deployments.autoscaling import WorkPolicy
from deployments.capacity.pools import Pools
from deployments.capacity.reading import read_yaml
from deployments.capacity.setting import Setting
from deployments.capacity.times import Times
from deployments.capacity.traffic import Traffic
from deployments.live_work import LiveWork

EXAMPLES = ROOT / "examples/capacity/ltx2"
TRACE = ROOT / "benchmarks/traces/bursts.yaml"
RESULT = RESULTS / "autoscaling.json"
MOST = {"text_encoder": 2, "denoiser": 8, "upsampler": 1, "refiner": 12, "audio_decoder": 2, "vae_decoder": 16}
SLOTS = sum(MOST.values())
PROCESS_SECONDS, GIGABYTES_A_SECOND = 12.0, 1.0  # until a replica is ready: its process and imports, its weights. Assumed.
LAG = 2  # decisions between a change and its record: it is told once a second and read once a second
TIMERS: dict[str, Any] = {"upscale_delay_s": 0, "downscale_delay_s": 60, "downscale_to_zero_delay_s": 120}
TUNED: dict[str, Any] = {**TIMERS, "target_ongoing_requests": 1, "look_back_period_s": 12}  # Serve's policy as eager as it may be
HORIZONS = (10, 20, 40)

Decide = Callable[[Mapping[Any, AutoscalingContext]], Mapping[Any, int]]


def main() -> None:
    setting = burst_setting()
    known = {
        "serve_as_shipped": lambda: serves_own(AutoscalingConfig(min_replicas=1, max_replicas=100)),
        "serve_tuned": lambda: serves_own(AutoscalingConfig(min_replicas=0, **TUNED)),
        "serve_tuned_warm": lambda: serves_own(AutoscalingConfig(min_replicas=1, **TUNED)),
        **{f"ours_{horizon}s": (lambda horizon=horizon: ours(horizon, least=0)) for horizon in HORIZONS},
        **{f"ours_{horizon}s_warm": (lambda horizon=horizon: ours(horizon, least=1)) for horizon in HORIZONS},
    }
    told = {"fixed_at_most": play(setting, None), **{name: play(setting, make()) for name, make in known.items()}}
    assumed = {"most": MOST, "slots": SLOTS, "timers": TIMERS, "process_seconds": PROCESS_SECONDS, "gigabytes_a_second": GIGABYTES_A_SECOND}
    result = {**circumstances("ray", "numpy"), "trace": TRACE.name, "times": setting.times.source, "assumed": assumed, "policies": told}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def burst_setting() -> Setting:
    traffic, times, pools = Traffic.load(TRACE), read_yaml(EXAMPLES / "times.yaml", Times), read_yaml(EXAMPLES / "pools.yaml", Pools)
    return Setting(traffic, {"ltx2": unserved_ltx2("2.3", "distilled")}, times, pools, SLOTS)


class Policy:
    """What decides, by which config; `look` is given what happens in the simulation before each decision."""

    def __init__(self, config: AutoscalingConfig, decide: Decide, look: Callable[[Elastic], None] = lambda run: None) -> None:
        self.config, self.decide, self.look = config, decide, look


def serves_own(config: AutoscalingConfig) -> Policy:
    """Each deployment by itself, as Serve does without an application's policy."""
    wrapped = serve_policies._apply_autoscaling_config(serve_policies.default_autoscaling_policy)  # pyright: ignore[reportPrivateUsage]
    states: dict[Any, Any] = {}

    def decide(contexts: Mapping[Any, AutoscalingContext]) -> dict[Any, int]:
        counts: dict[Any, int] = {}
        for place, context in contexts.items():
            context.policy_state = states.get(place, {})
            counts[place], states[place] = wrapped(context)
        return counts

    return Policy(config, decide)


def ours(horizon: float, *, least: int) -> Policy:
    records: list[LiveWork] = []

    class Told(WorkPolicy):
        def live_work(self, family: str | None) -> LiveWork | None:
            return records[-LAG - 1] if len(records) > LAG else ()

    wrapped = serve_policies._apply_app_level_autoscaling_config(Told(horizon_seconds=horizon))  # pyright: ignore[reportPrivateUsage]
    states: dict[Any, Any] = {}

    def decide(contexts: Mapping[Any, AutoscalingContext]) -> dict[Any, int]:
        for place, context in contexts.items():
            context.policy_state = states.get(place, {})
        counts, found = wrapped(dict(contexts))
        states.update(found)
        return counts

    return Policy(AutoscalingConfig(min_replicas=least, **TIMERS), decide, lambda run: records.append(run.live_work()))


class Clock:
    """The simulation's, in the place of Serve's."""

    now = 0.0

    def time(self) -> float:
        return self.now


def play(setting: Setting, policy: Policy | None) -> dict[str, Any]:
    """The trace to its end; None: as many replicas as there may be, all the time."""
    lines = tuple(Line(stage, MOST[stage], cold_start(setting, stage)) for _, stage in setting.deployments)
    clock, run = Clock(), Elastic(setting, lines, replicas=MOST if policy is None else dict.fromkeys(MOST, policy.config.min_replicas))
    if policy is not None:
        run.every_second = lambda: scale(run, policy, clock)
    with patch.object(serve_policies, "time", clock):
        run.go()
    return summary(setting, run)


def cold_start(setting: Setting, stage: str) -> float:
    return PROCESS_SECONDS + setting.pools.share(stage).memory_gb / GIGABYTES_A_SECOND


def scale(run: Elastic, policy: Policy, clock: Clock) -> None:
    clock.now = run.now
    policy.look(run)
    contexts = {DeploymentID(name=line.stage, app_name="ltx2"): context(run, line, policy.config) for line in run.lines}
    for place, count in policy.decide(contexts).items():
        run.scale(place.name, min(max(math.ceil(count), policy.config.min_replicas), MOST[place.name]))


def context(run: Elastic, line: Line, config: AutoscalingConfig) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=DeploymentID(name=line.stage, app_name="ltx2"),
        deployment_name=line.stage,
        app_name="ltx2",
        current_num_replicas=line.ready,
        target_num_replicas=line.target,
        running_replicas=[],
        total_num_requests=line.ongoing_of_late(config.look_back_period_s),
        total_queued_requests=None,
        aggregated_metrics=None,
        raw_metrics=None,
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=MOST[line.stage],
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=run.now,
        config=config,
    )


def summary(setting: Setting, run: Elastic) -> dict[str, Any]:
    latency = np.array(run.latency)
    share = {line.stage: setting.pools.share(line.stage).gpus for line in run.lines}
    price = {line.stage: setting.pools.of(line.stage).price_per_hour for line in run.lines}
    spent = {line.stage: line.replica_seconds for line in run.lines}
    return {
        "jobs": len(latency),
        "p50": round(float(np.quantile(latency, 0.5)), 1),
        "p95": round(float(np.quantile(latency, 0.95)), 1),
        "worst": round(float(latency.max()), 1),
        "replica_seconds": round(sum(spent.values())),
        "price": round(sum(spent[stage] * share[stage] * price[stage] / 3600 for stage in spent), 2),
        "busy": round(sum(line.busy_seconds for line in run.lines) / sum(spent.values()), 3),
        "replica_seconds_by_stage": {stage: round(seconds) for stage, seconds in spent.items()},
    }


if __name__ == "__main__":
    main()
