"""a plan -> what is told of it: JSON-ready, and the sizes that go into a serve config"""

from typing import Any

from deployments.capacity.model import Outcome
from deployments.capacity.plan import MonolithPlan, Plan
from deployments.capacity.served import Served, Sizes

QUANTILES = (0.5, 0.95, 0.99)


def report_of(plan: Plan, served: Served) -> dict[str, Any]:
    setting, outcome = plan.setting, plan.verdict.outcome
    return {
        "traffic": setting.traffic.name,
        "seconds": setting.traffic.seconds,
        "arrivals": len(outcome.columns),
        "slo": str(plan.slo),
        "holds": plan.verdict.holds,
        "faults": list(plan.verdict.faults),
        "latency_seconds": latency_of(outcome),
        "throughput_per_minute": throughput_of(outcome, setting.traffic.seconds),
        "stages": _stages(plan),
        "pools": _pools(plan),
        "jobs_at_once": outcome.peak,
        "cost_per_hour": plan.cost_per_hour,
        "cost_per_1000_videos": plan.cost_per_1000(plan.cost_per_hour),
        "breaks_first": {
            "factor": plan.breaks.factor,
            "tried_up_to": plan.breaks.tried,
            "stage": plan.breaks.line,
            "faults": list(plan.breaks.faults),
        },
        "monolith": None if plan.monolith is None else _monolith(plan, plan.monolith),
        "sources": {"times": setting.times.source, "pools": setting.pools.source},
        "notes": list(served.absent.values()),
    }


def latency_of(outcome: Outcome) -> dict[str, float]:
    return {f"p{quantile * 100:g}": round(outcome.quantile(quantile), 4) for quantile in QUANTILES}


def throughput_of(outcome: Outcome, seconds: float) -> float:
    """Videos a minute, from the beginning of the traffic until its end, or until the last video where that is later."""
    done = outcome.done[outcome.completed]
    return 0.0 if not len(done) else round(60 * len(done) / max(float(done.max()), seconds), 4)


def _stages(plan: Plan) -> list[dict[str, Any]]:
    setting, outcome = plan.setting, plan.verdict.outcome
    completed = max(int(outcome.completed.sum()), 1)
    return [
        {
            "family": family,
            "stage": stage,
            "pool": setting.pools.of(stage).name,
            "replicas": count,
            "utilisation": round(float(outcome.busy[line]) / setting.traffic.seconds / count, 4),
            "wait_seconds": round(float(outcome.waited[line].sum()) / completed, 4),
        }
        for line, ((family, stage), count) in enumerate(zip(setting.deployments, plan.replicas, strict=True))
    ]


def _pools(plan: Plan) -> list[dict[str, Any]]:
    counts = plan.by_stage
    told: list[dict[str, Any]] = []
    for pool in plan.setting.pools.pools:
        here = {stage: counts.get(stage, 0) for stage in pool.stages}
        if any(here.values()):
            units = pool.units(here)
            kind = f"machine of {pool.cores} cores" if pool.accelerator is None else pool.accelerator
            told.append({"name": pool.name, "kind": kind, "count": units, "cost_per_hour": units * pool.price_per_hour})
    return told


def _monolith(plan: Plan, monolith: MonolithPlan) -> dict[str, Any]:
    told: dict[str, Any] = {"accelerator": monolith.kind.accelerator, "memory_gb": monolith.memory_gb, "cannot": monolith.cannot}
    if monolith.verdict is None:
        return told
    cost = plan.cost_per_1000(monolith.cost_per_hour)
    return told | {
        "replicas": monolith.replicas,
        "cost_per_hour": monolith.cost_per_hour,
        "cost_per_1000_videos": cost,
        "pools_cost_of_it": None if not cost else plan.cost_per_1000(plan.cost_per_hour) / cost,
        "latency_seconds": latency_of(monolith.verdict.outcome),
        "utilisation": round(float(monolith.verdict.outcome.busy[0]) / plan.setting.traffic.seconds / monolith.replicas, 4),
    }


def sizes_of(plan: Plan) -> Sizes:
    """What a serve config needs to know of the plan."""
    setting = plan.setting
    seconds = dict.fromkeys(setting.deployments, 0.0)
    visits = dict.fromkeys(setting.deployments, 0)
    model = setting.model()
    for graph, job in zip(setting.graphs, model.jobs, strict=True):
        for task, visit in zip(graph.tasks, job, strict=True):
            key = task.family, task.stage
            seconds[key] = max(seconds[key], visit.seconds)
        for key in visits:
            visits[key] = max(visits[key], sum((task.family, task.stage) == key for task in graph.tasks))
    replicas = dict(zip(setting.deployments, plan.replicas, strict=True))
    return Sizes(replicas, seconds, visits, plan.verdict.outcome.peak)
