"""live work, a family's stages and their bounds -> replicas for each stage: the policy that serve_config.yaml names

An application's policy and not a deployment's: how many replicas one stage needs depends on what the others let through. Serve sends this
module to its controller by value, so it holds nothing that cannot travel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.autoscaling_policy import default_autoscaling_policy
from ray.serve.config import AutoscalingContext

from deployments.live_work import LiveWork, LiveWorkReader
from deployments.scaling_args import PolicyArgs

READ_SECONDS = 1.0
SLACK = 0.1  # of a replica: for so little more no other is started
EDGE = 1e-9  # what sums are off by
HELD, AT = "aiprod_held", "aiprod_at"  # in Serve's state of a deployment: the wish as it fades, and when it was noted


@dataclass(frozen=True)
class Stage:
    """Its replicas, as they were last asked for, their bounds, and what is left of an earlier and greater wish."""

    replicas: int
    least: int
    most: int
    held: float = 0.0


def needs_of(work: LiveWork, most: Mapping[str, int], *, horizon: float) -> dict[str, float]:
    """Replicas that each stage is to have at work, in parts of one: so many that all known work is done within the horizon.

    Where a stage may not have as many, the jobs that must go through it take longer, and their other stages need the fewer; jobs that are
    past it are not held up. A job is at one place at a time, so a stage never needs more replicas than it has jobs.
    """
    spans = [max(horizon, max(group.seconds.values()) / group.jobs) for group in work]
    for _ in most:  # each round settles the stage that is narrowest
        loads = {stage: _load(stage, work, spans) / count for stage, count in most.items()}
        narrowest = max(loads, key=loads.__getitem__)
        if loads[narrowest] <= 1 + EDGE:
            break
        least = _span_of(narrowest, work, spans, replicas=most[narrowest])
        spans = [max(span, least) if narrowest in group.seconds else span for group, span in zip(work, spans, strict=True)]
    return {stage: _load(stage, work, spans) for stage in most}


def _load(stage: str, work: LiveWork, spans: list[float]) -> float:
    return sum(group.seconds[stage] / span for group, span in zip(work, spans, strict=True) if stage in group.seconds)


def _span_of(stage: str, work: LiveWork, spans: list[float], *, replicas: float) -> float:
    """In which the stage gets through with so many, jobs that take longer anyhow left as they are: they do not hold up the others."""
    there = sorted((span, group.seconds[stage]) for group, span in zip(work, spans, strict=True) if stage in group.seconds)
    slower, seconds = _load(stage, work, spans), 0.0
    for place, (span, spent) in enumerate(there):
        slower, seconds = slower - spent / span, seconds + spent
        following = there[place + 1][0] if place + 1 < len(there) else math.inf
        if slower < replicas and seconds <= (replicas - slower) * following:
            return seconds / (replicas - slower)
    return there[-1][0]


def replicas_for(work: LiveWork, stages: Mapping[str, Stage], *, horizon: float) -> dict[str, tuple[int, float]]:
    """For each stage its replicas, and what of the wish is to be held for the next time.

    A stage that a live job needs has at least one, wherever the job is now: it starts before the job is there, and stays while those before
    it are slow.
    """
    needs = needs_of(work, {name: max(stage.most, 1) for name, stage in stages.items()}, horizon=horizon)
    needed = {name for group in work for name in group.seconds}
    return {name: (_bounded(needs[name], stage, is_needed=name in needed), max(needs[name], stage.held)) for name, stage in stages.items()}


def _bounded(need: float, stage: Stage, *, is_needed: bool) -> int:
    fewest, enough = math.ceil(need - SLACK), math.ceil(need)
    count = max(min(max(stage.replicas, fewest), enough), math.floor(stage.held + 0.5), 1 if is_needed else 0)
    return min(max(count, stage.least), stage.most)


def faded(held: float, elapsed: float, *, smoothing: float) -> float:
    """What is left of a wish after so many seconds."""
    return held * math.exp(-elapsed / smoothing) if smoothing else 0.0


class WorkPolicy:
    """Serve's policy for one family. It answers at once: a thread reads what the dispatchers tell.

    Waiting before a change is left to Serve, which wraps every policy in its own delays; so is draining, which ends no call of a replica
    within its `graceful_shutdown_timeout_s`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._args = PolicyArgs.model_validate(kwargs)
        self._reader: LiveWorkReader | None = None

    def __call__(self, contexts: Mapping[Any, AutoscalingContext]) -> tuple[dict[Any, float], dict[Any, dict[str, Any]]]:
        work = self.live_work(next((context.app_name for context in contexts.values()), None))
        if work is None:
            return {place: default_autoscaling_policy(context)[0] for place, context in contexts.items()}, {}
        stages = {context.deployment_name: self._stage(context) for context in contexts.values()}
        wanted = replicas_for(work, stages, horizon=self._args.horizon_seconds)
        counts = {place: float(wanted[context.deployment_name][0]) for place, context in contexts.items()}
        state = {place: {HELD: wanted[context.deployment_name][1], AT: context.current_time} for place, context in contexts.items()}
        return counts, state

    def _stage(self, context: AutoscalingContext) -> Stage:
        now = context.current_time or 0.0
        held, at = context.policy_state.get(HELD, 0.0), context.policy_state.get(AT, now)
        least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        left = faded(held, max(now - at, 0.0), smoothing=self._args.smoothing_seconds)
        return Stage(context.target_num_replicas, least, most, left)

    def live_work(self, family: str | None) -> LiveWork | None:
        """What was told of late; None where nobody told anything."""
        if family is None:
            return None
        if self._reader is None:
            self._reader = LiveWorkReader(family, period=READ_SECONDS, stale_after=self._args.stale_seconds)
        return self._reader.read()
