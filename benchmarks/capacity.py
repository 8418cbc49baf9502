"""what `aiprod capacity` predicts beside what is measured, how fast it simulates, pools beside monoliths -> results/capacity.json

python -m benchmarks.capacity scale       a million videos in a day on 10,000 GPUs, simulated
python -m benchmarks.capacity monolith    LTX-2: per-stage pools and monolith replicas on the same traffic
python -m benchmarks.capacity validate    the miniature on this machine, which must be idle; in some 40 minutes

Each writes its own part of the file and leaves the others.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aiprod_client.server import free_port, running_server
from benchmarks.measuring import RESULTS, ROOT, circumstances
from benchmarks.open_loop import play
from deployments.capacity.calibrate import calibrate_from_result, write_times
from deployments.capacity.model import Outcome
from deployments.capacity.plan import Search, make_plan
from deployments.capacity.pools import Pools
from deployments.capacity.reading import read_yaml
from deployments.capacity.report import latency_of, report_of, throughput_of
from deployments.capacity.served import Served, read_served
from deployments.capacity.setting import Setting
from deployments.capacity.simulate import simulate
from deployments.capacity.slo import parse_slo
from deployments.capacity.times import Times
from deployments.capacity.traffic import Traffic
from loadtests.result import latency_at

RESULT = RESULTS / "capacity.json"
EXAMPLES = ROOT / "examples/capacity"
GPUS = 10_000
REPEATS = 3
ALLOWED, PROMISED = 0.15, ("throughput_per_minute", "p95")
CALIBRATION, JUDGED_BY = "calibration", ("traffic", "crowd")
LARGE = {"model": "ltx2", "pipeline": "ti2vid_two_stages", "size": "1920x1088", "num_frames": 481, "num_inference_steps": 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["scale", "monolith", "validate"])
    parser.add_argument("--seconds", type=float, help="validate: only so much of each traffic, to see that it works")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    parts = {"scale": scale, "monolith": monolith, "validate": lambda: validate(seconds=options.seconds, repeats=options.repeats)}
    told = {**circumstances("numpy", "ray", "torch"), **parts[options.part]()}
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**known, options.part: told}, indent=2) + "\n")
    sys.stdout.write(json.dumps({name: part for name, part in told.items() if name != "rows"}, indent=2) + "\n")


def scale() -> dict[str, Any]:
    """Videos so large that a million of them a day keep 10,000 GPUs busy; a tenth is cancelled."""
    each = {
        "name": "large",
        "request": LARGE,
        "arrival": {"kind": "poisson", "per_second": 1e6 / 86_400},
        "cancels": 0.1,
        "cancel_after": 120,
    }
    traffic = Traffic.model_validate({"name": "a million a day", "seconds": 86_400, "classes": [each]})
    setting = _ltx2("guided", traffic)
    begun, columns = time.perf_counter(), traffic.columns()
    arrived = time.perf_counter()
    search = Search(setting.model(), parse_slo("p95=1h"), most=[GPUS] * len(setting.deployments))
    replicas = _filling(setting, search.bound(columns, traffic.seconds))
    starts, worked = time.perf_counter(), time.process_time()
    outcome = simulate(setting.model(replicas), columns)
    ended, worked = time.perf_counter(), time.process_time() - worked
    plan = make_plan(setting, parse_slo("p95=20min"))
    planned = time.perf_counter()
    tasks = len(setting.graphs[0].tasks)
    return {
        "videos": len(columns),
        "steps": tasks * len(columns),
        "gpus": _gpus(setting, replicas),
        "replicas": dict(zip(map(".".join, setting.deployments), replicas, strict=True)),
        "seconds": {
            "arrivals": arrived - begun,
            "simulation": ended - starts,
            "simulation_on_the_cpu": worked,
            "whole_plan": planned - ended,
        },
        "completed": int(outcome.completed.sum()),
        "utilisation": [round(float(busy) / traffic.seconds / count, 4) for busy, count in zip(outcome.busy, replicas, strict=True)],
        "latency_seconds": latency_of(outcome),
        "plan": {"slo": "p95=20min", "holds": plan.verdict.holds, "gpus": _gpus(setting, plan.replicas)},
    }


def _filling(setting: Setting, bound: tuple[int, ...]) -> tuple[int, ...]:
    """Replicas in the proportion of the work, until all GPUs are taken."""
    low, high = 1.0, 2 * GPUS / sum(bound)
    for _ in range(20):
        middle = (low + high) / 2
        taken = _gpus(setting, tuple(int(count * middle) for count in bound))
        low, high = (middle, high) if taken <= GPUS else (low, middle)
    return tuple(int(count * low) for count in bound)


def _gpus(setting: Setting, replicas: tuple[int, ...]) -> int:
    counts = {stage: count for (_, stage), count in zip(setting.deployments, replicas, strict=True)}
    return sum(pool.units({stage: counts.get(stage, 0) for stage in pool.stages}) for pool in setting.pools.pools)


def _ltx2(kind: str, traffic: Traffic) -> Setting:
    served = read_served(ROOT / {"guided": "examples/ltx2/eight-h100.yaml", "distilled": "examples/ltx2/l4-h100.yaml"}[kind])
    folder = EXAMPLES / "ltx2"
    pools = read_yaml(folder / {"guided": "pools-guided.yaml", "distilled": "pools.yaml"}[kind], Pools)
    return Setting(traffic, served.families, read_yaml(folder / "times.yaml", Times), pools, served.slots)


def monolith() -> dict[str, Any]:
    """The example's traffic, distilled in float8 and guided in bfloat16, with several promises."""
    compared: list[dict[str, Any]] = []
    for kind in ("distilled", "guided"):
        traffic = Traffic.load(EXAMPLES / "ltx2/traffic.yaml")
        if kind == "guided":
            guided = tuple(
                each.model_copy(update={"request": {**each.request, "pipeline": "ti2vid_two_stages"}}) for each in traffic.classes
            )
            traffic = traffic.model_copy(update={"classes": guided})
        setting = _ltx2(kind, traffic)
        for slo in ("p95=1min", "p95=2min") if kind == "distilled" else ("p95=2min", "p95=5min"):
            report = report_of(make_plan(setting, parse_slo(slo)), Served({}, {}, {}, 0))
            kept = ("slo", "holds", "latency_seconds", "stages", "pools", "cost_per_1000_videos", "breaks_first", "monolith")
            compared.append({"variant": kind, **{name: report[name] for name in kept}})
    return {"source": "examples/capacity/ltx2: computed stage times and prices of an example", "compared": compared}


def validate(*, seconds: float | None, repeats: int) -> dict[str, Any]:
    """Calibrated on one traffic, then asked what two others do.

    All three are played in turns, several times: what else the machine's host does slows each of them as much.
    """
    served, pools = read_served(ROOT / "serve_config.yaml"), read_yaml(EXAMPLES / "miniature/pools.yaml", Pools)
    traffics = {name: _cut(Traffic.load(EXAMPLES / f"miniature/{name}.yaml"), seconds) for name in (CALIBRATION, *JUDGED_BY)}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(ROOT / "serve_config.yaml", port=free_port(), data=Path(folder)) as server,
    ):
        asyncio.run(play(server.url, _cut(traffics[CALIBRATION], 20.0)))  # the first calls are slower
        # Each has a number to begin with, so that its videos are none that were made before.
        numbers = itertools.count(10**6, 10**6)
        plays = [
            {name: asyncio.run(play(server.url, traffic, first_number=next(numbers))) for name, traffic in traffics.items()}
            for _ in range(repeats)
        ]
    found = calibrate_from_result(
        _one_after_the_other([played[CALIBRATION] for played in plays]), traffics[CALIBRATION], served, pools, stages_of=lambda video: []
    )
    judged = {
        name: _judge(Setting(traffics[name], served.families, found.times, pools, served.slots), [played[name] for played in plays])
        for name in JUDGED_BY
    }
    result = {"seconds": seconds, "repeats": repeats, "times": found.times.model_dump(mode="json"), "judged": judged}
    within = all(abs(each["off"][figure]) <= ALLOWED for each in judged.values() for figure in PROMISED)
    if seconds is None:
        write_times(found.times, EXAMPLES / "miniature/times.yaml")
    return {**result, "within_15_percent": within}


def _one_after_the_other(results: list[dict[str, Any]]) -> dict[str, Any]:
    """So far apart that no video of one was beside one of another."""
    apart = 2 * max(row["at"] + row["latency"] for result in results for row in result["rows"])
    return {"rows": [{**row, "at": row["at"] + apart * place} for place, result in enumerate(results) for row in result["rows"]]}


def _judge(setting: Setting, results: list[dict[str, Any]]) -> dict[str, Any]:
    columns = setting.traffic.columns()
    predicted = _figures(simulate(setting.model([1] * len(setting.deployments)), columns), setting.traffic.seconds)
    runs = [_measured(result) for result in results]
    median = {figure: statistics.median(run[figure] for run in runs) for figure in predicted}
    off = {figure: round(predicted[figure] / median[figure] - 1, 4) for figure in predicted}
    return {"traffic": setting.traffic.name, "arrivals": len(columns), "predicted": predicted, "runs": runs, "median": median, "off": off}


def _figures(outcome: Outcome, seconds: float) -> dict[str, float]:
    return {"throughput_per_minute": throughput_of(outcome, seconds), "p95": outcome.quantile(0.95), "p50": outcome.quantile(0.5)}


def _measured(result: dict[str, Any]) -> dict[str, float]:
    rows = result["rows"]
    return {
        "throughput_per_minute": result["throughput_per_minute"],
        "p95": latency_at(rows, 0.95),
        "p50": latency_at(rows, 0.5),
        "failed": result["failed"],
    }


def _cut(traffic: Traffic, seconds: float | None) -> Traffic:
    return traffic if seconds is None else traffic.model_copy(update={"seconds": min(seconds, traffic.seconds)})


if __name__ == "__main__":
    main()
