"""finished videos with what each of their steps took -> stage times, hops, overhead, and how sharing cores slows work down

What a video took is known of those that nobody else was beside: their steps had every core, and waited for nobody. How sharing slows it
down is known of all the others: with one exponent the simulated trace keeps its stages as busy as the measured one did.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aiprod_components.errors import InvalidRequestError
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.capacity.fitting import Sample, line_through, stage_time
from deployments.capacity.graph import graphs_of
from deployments.capacity.pools import Pools
from deployments.capacity.served import Served
from deployments.capacity.setting import Setting
from deployments.capacity.simulate import simulate
from deployments.capacity.times import Contention, Hop, Overhead, Times
from deployments.capacity.traffic import Columns, Traffic
from deployments.work import Graph, graph_of

COMPLETED = "completed"
# Of the time of a job that no step accounts for: until it may be claimed, and while it has a slot; the rest is after its end.
BEFORE, HELD = 0.25, 0.4
STEEPEST, HALVINGS = 4.0, 12
MET = 1.05  # where the steepest exponent makes less of a difference, too few steps met to tell one

Lines = Sequence[Mapping[str, Any]]  # receipts, as the API shows them


@dataclass(frozen=True)
class Calibrated:
    """Times, from how many videos, and how many were no use."""

    times: Times
    used: int
    passed_over: int


@dataclass(frozen=True)
class Made:
    """A finished video: its graph, its steps' receipts, when it was asked for and how long it took (nan: nobody noted it)."""

    graph: Graph
    lines: Lines
    at: float = float("nan")
    latency: float = float("nan")

    def samples(self) -> list[tuple[tuple[str, str], Sample]]:
        tasks = {task.step: task for task in self.graph.tasks}
        used = [(tasks[line["step"]], line) for line in self.lines if not line.get("cache_hit")]
        return [((task.family, task.stage), Sample(task.units, line["run_seconds"])) for task, line in used]

    def hops(self) -> list[Sample]:
        tasks = {task.step: task for task in self.graph.tasks}
        return [Sample(tasks[line["step"]].input_bytes / 1e6, line["queued_seconds"]) for line in self.lines if not line.get("cache_hit")]

    @property
    def unaccounted(self) -> float:
        """What it took besides its steps and the ways between them."""
        seconds = {line["step"]: line["queued_seconds"] + line["run_seconds"] for line in self.lines}
        ends: list[float] = []
        for task in self.graph.tasks:
            ends.append(max((ends[source] for source in task.inputs), default=0.0) + seconds.get(task.step, 0.0))
        return max(self.latency - max(ends), 0.0)


def calibrate_from_jobs(jobs: Sequence[Mapping[str, Any]], served: Served, *, source: str) -> Calibrated:
    """From jobs as a server shows them. Of one made with settings that are not shown nothing is learned: its cost gives it away.

    Raises InvalidRequestError where none is of use.
    """
    wire = Wire(served.families)
    made = [found for job in jobs if (found := _read_job(job, wire)) is not None]
    if not made:
        raise InvalidRequestError(
            f"server: of {len(jobs)} videos none is finished and told of whole; make some, then calibrate", field="server"
        )
    hops = [sample.seconds for each in made for sample in each.hops()]
    hop = Hop(seconds=round(float(np.quantile(hops, 0.1)), 5)) if hops else Hop()  # the least busy ones: the rest is waiting
    return Calibrated(Times(source=source, stages=_stage_times(made), hop=hop), len(made), len(jobs) - len(made))


def _read_job(job: Mapping[str, Any], wire: Wire) -> Made | None:
    if job.get("status") != COMPLETED or not job.get("stages"):
        return None
    body = {name: job[name] for name in ("model", "pipeline", "prompt", "size", "num_frames", "fps", "seed") if job.get(name) is not None}
    try:
        asked = wire.read(Body(body, is_json=True))
    except InvalidRequestError:
        return None
    graph = graph_of(asked.plan)
    told = {line["step"] for line in job["stages"]} == {task.step for task in graph.tasks}
    same_cost = abs(sum(task.units for task in graph.tasks) / 1000 - (job.get("cost") or 0.0)) < 0.001
    return Made(graph, job["stages"]) if told and same_cost else None


def calibrate_from_result(result: Any, traffic: Traffic, served: Served, pools: Pools, *, stages_of: Callable[[str], Lines]) -> Calibrated:
    """From a load test of this traffic; `stages_of` asks for the receipts of a video whose row has none.

    Raises InvalidRequestError where rows are missing, or no video was alone.
    """
    rows = _rows_of(result)
    made = _made_by(rows, traffic, served, stages_of=stages_of)
    setting = Setting(traffic, served.families, Times(source="none", stages={}), pools, served.slots)
    spans = [(row["at"], row["at"] + row["latency"]) for row in rows]
    alone = [each for each in made if sum(start < each.at + each.latency and end > each.at for start, end in spans) == 1]
    base = alone if setting.is_shared else made
    known = {key for each in base for key, _ in each.samples()}
    if lacking := [deployment for deployment in setting.deployments if deployment not in known]:
        told = "was alone" if setting.is_shared else "was finished"
        raise InvalidRequestError(
            f"result: no video that {'.'.join(lacking[0])} worked for {told}; calibrate with a traffic that begins with single requests, "
            "such as examples/capacity/miniature/calibration.yaml",
            field="result",
        )
    source = f"{len(base)} of {len(rows)} requests of {traffic.name}"
    times = Times(source=source, stages=_stage_times(base), hop=_hop_of(alone), overhead=_overhead_of(alone))
    if setting.is_shared:
        times = times.model_copy(update={"contention": _contention(replace(setting, times=times), rows, made)})
    return Calibrated(times, len(made), len(rows) - len(made))


def _rows_of(result: Any) -> list[Mapping[str, Any]]:
    rows = result.get("rows") if isinstance(result, Mapping) else None
    needed = {"class", "at", "latency", "status"}
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) and row.keys() >= needed for row in rows):
        raise InvalidRequestError(
            f"result: rows must have {', '.join(sorted(needed))} of every request; give a load test's JSON", field="rows"
        )
    for number, row in enumerate(rows):
        for name in ("at", "latency"):
            _check_seconds(row[name], at=f"rows.{number}.{name}")
    return rows


def _check_seconds(value: Any, *, at: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequestError(f"result: {at} must be a number of seconds, got {value!r}; give a load test's JSON", field=at)


def _check_lines(lines: Any, graph: Graph, *, at: str) -> Lines:
    """Receipts of the steps of this graph: those of a video made with another config tell nothing of it."""
    known = [task.step for task in graph.tasks]
    if not isinstance(lines, Sequence) or not all(isinstance(line, Mapping) for line in lines):
        raise InvalidRequestError(f"result: {at} must be receipts of steps, got {lines!r}; give a load test's JSON", field=at)
    for number, line in enumerate(lines):
        if line.get("step") not in known:
            told = f"result: {at}.{number}.step is {line.get('step')!r}, which the config's plan has not; it has {', '.join(known)}"
            raise InvalidRequestError(f"{told}; name the config of the load test with --config", field=at)
        for name in ("queued_seconds", "run_seconds"):
            _check_seconds(line.get(name), at=f"{at}.{number}.{name}")
    return lines


def _made_by(rows: Sequence[Mapping[str, Any]], traffic: Traffic, served: Served, *, stages_of: Callable[[str], Lines]) -> list[Made]:
    graphs = dict(zip((each.name for each in traffic.classes), graphs_of(traffic, served.families), strict=True))
    if strange := [row["class"] for row in rows if row["class"] not in list(graphs)]:
        raise InvalidRequestError(
            f"result: class {strange[0]!r} is none of the traffic's: {', '.join(graphs)}; give both of one test", field="rows"
        )
    completed = [(number, row) for number, row in enumerate(rows) if row["status"] == COMPLETED]
    if completed and not any({"stages", "id"} & row.keys() for _, row in completed):
        raise InvalidRequestError("result: its rows have neither stages nor ids of videos, so what steps took is not known", field="rows")

    def made(number: int, row: Mapping[str, Any]) -> Made:
        graph, lines = graphs[row["class"]], row.get("stages") or stages_of(_id_of(row, at=f"rows.{number}"))
        return Made(graph, _check_lines(lines, graph, at=f"rows.{number}.stages"), row["at"], row["latency"])

    return [made(number, row) for number, row in completed]


def _id_of(row: Mapping[str, Any], *, at: str) -> str:
    if not isinstance(video := row.get("id"), str):
        raise InvalidRequestError(f"result: {at} has neither stages nor the id of its video; give a load test's JSON", field=at)
    return video


def _stage_times(made: Sequence[Made]) -> dict[str, dict[str, Any]]:
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for each in made:
        for key, sample in each.samples():
            samples[key].append(sample)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for (family, stage), of_it in samples.items():
        found[family][stage] = stage_time(of_it)
    return dict(found)


def _hop_of(alone: Sequence[Made]) -> Hop:
    samples = [sample for each in alone for sample in each.hops()]
    if not samples:
        return Hop()
    # A hop that carries nothing has its price too, so the line does not begin at 0 where all carry about as much.
    base, slope = line_through([*samples, Sample(0.0, min(sample.seconds for sample in samples))])
    return Hop(seconds=round(base, 5), seconds_per_megabyte=round(slope, 5))


def _overhead_of(alone: Sequence[Made]) -> Overhead:
    if not alone:
        return Overhead()
    unaccounted = float(np.median([each.unaccounted for each in alone]))
    shares = {"before": BEFORE, "held": HELD, "after": 1 - BEFORE - HELD}
    return Overhead(**{name: round(share * unaccounted, 4) for name, share in shares.items()})


def _contention(setting: Setting, rows: Sequence[Mapping[str, Any]], made: Sequence[Made]) -> Contention:
    """The exponent with which the steps of the simulated trace take as long in all as those of the measured one."""
    measured = sum(sample.seconds for each in made for _, sample in each.samples())
    columns = columns_of(rows, setting.traffic)

    def busy(exponent: float) -> float:
        tried = replace(setting, times=setting.times.model_copy(update={"contention": Contention(exponent=exponent)}))
        return float(simulate(tried.model([1] * len(setting.deployments)), columns).busy.sum())

    low, high = 0.0, STEEPEST
    if busy(high) < MET * busy(low):
        return Contention()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if busy(middle) < measured else (low, middle)
    return Contention(exponent=round((low + high) / 2, 3))


def columns_of(rows: Sequence[Mapping[str, Any]], traffic: Traffic) -> Columns:
    """The arrivals of a load test; what did not come to an end was gone when it says so."""
    names = [each.name for each in traffic.classes]
    ordered = sorted(rows, key=lambda row: row["at"])
    at = np.array([row["at"] for row in ordered], dtype=np.float64)
    kind = np.array([names.index(row["class"]) for row in ordered], dtype=np.int64)
    gone = np.array([np.inf if row["status"] == COMPLETED else row["at"] + row["latency"] for row in ordered])
    return Columns(at, kind, gone)


def write_times(times: Times, path: Path) -> None:
    path.write_text(yaml.safe_dump(times.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=140), encoding="utf-8")
