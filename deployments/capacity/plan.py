"""a setting and a promise -> the fewest replicas that keep it, what breaks it first, and monolith replicas beside them

More replicas go where those who come too late have waited longest; then every stage gives back what it does not need.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.model import UNLIMITED, Model, Outcome
from deployments.capacity.pools import Monolith, at_least, hourly
from deployments.capacity.setting import Setting, work_of
from deployments.capacity.simulate import simulate
from deployments.capacity.slo import Slo
from deployments.capacity.traffic import Columns

EXCERPT = 30_000  # arrivals that are searched with; the answer is checked with all of them
DENSER = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
CLOSE = 1.01  # how near to the factor that breaks
FULL = 1 + 1e-9  # share of its time that a replica may work, and what sums of seconds are off by
NEVER = 2**31
SLOTS = "the dispatcher's slots"


@dataclass(frozen=True)
class Verdict:
    """Whether so many replicas keep the promise; if not, why; and where most of the waiting is."""

    outcome: Outcome
    faults: tuple[str, ...]
    at_fault: str

    @property
    def holds(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class Break:
    """The factor of today's traffic at which the promise breaks (None: not up to `tried`), where, and how."""

    factor: float | None
    tried: float
    line: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class MonolithPlan:
    """Replicas that each hold all stages, and what breaks their promise first (`cannot`: why there can be none)."""

    kind: Monolith
    memory_gb: float
    replicas: int = 0
    verdict: Verdict | None = None
    cannot: str | None = None

    @property
    def cost_per_hour(self) -> float:
        return self.replicas * self.kind.price_per_hour


@dataclass(frozen=True)
class Plan:
    """Replicas of each deployment of the setting, what they do with the traffic, what they cost, and what breaks first."""

    setting: Setting
    slo: Slo
    replicas: tuple[int, ...]
    verdict: Verdict
    breaks: Break
    monolith: MonolithPlan | None

    @property
    def by_stage(self) -> dict[str, int]:
        """Of all families together: they share pools."""
        counts: dict[str, int] = {}
        for (_, stage), count in zip(self.setting.deployments, self.replicas, strict=True):
            counts[stage] = counts.get(stage, 0) + count
        return counts

    @property
    def cost_per_hour(self) -> float:
        return hourly(self.setting.pools.pools, self.by_stage)

    def cost_per_1000(self, cost_per_hour: float) -> float:
        """Of videos that come out while the pools are held for the length of the traffic."""
        completed = int(self.verdict.outcome.completed.sum())
        return cost_per_hour * self.setting.traffic.seconds / 3600 * 1000 / completed if completed else math.inf


def make_plan(setting: Setting, slo: Slo) -> Plan:
    """Raises InvalidRequestError for a promise that no number of replicas keeps."""
    if not slo.latency:
        raise InvalidRequestError("slo: the simulation knows no errors; promise a latency, such as p95=60s", field="slo")
    columns = setting.traffic.columns()
    if not len(columns):
        raise InvalidRequestError(f"traffic: nothing arrives in its {setting.traffic.seconds:g} seconds; make it longer", field="seconds")
    search = Search(setting.model(), slo, most=[_most(setting, stage) for _, stage in setting.deployments])
    replicas = search.fewest(columns, seconds=setting.traffic.seconds, prices=[_price(setting, stage) for _, stage in setting.deployments])
    verdict = search.judge(replicas, columns, setting.traffic.seconds)
    monolith = None if setting.pools.monolith is None else _monolith(setting, slo, setting.pools.monolith, columns)
    return Plan(setting, slo, replicas, verdict, find_break(setting, search, replicas), monolith)


def _most(setting: Setting, stage: str) -> int:
    """More replicas than cores only take them from each other."""
    return setting.pools.of(stage).cores or NEVER


def _price(setting: Setting, stage: str) -> float:
    return setting.pools.of(stage).price_per_hour * setting.pools.share(stage).gpus


class Search:
    """Looks for replicas that keep a promise; `most` are those of each line that are worth trying."""

    def __init__(self, model: Model, slo: Slo, *, most: Sequence[int]) -> None:
        self._model, self._slo, self._most = model, slo, most

    def judge(self, replicas: Sequence[int], columns: Columns, seconds: float, part: Columns | None = None) -> Verdict:
        """What comes in so many seconds, by a part of it (None: all); the work that comes is that of all in any case."""
        return self._judge(replicas, columns if part is None else part, self._loads(columns, seconds))

    def _judge(self, replicas: Sequence[int], columns: Columns, loads: Sequence[float]) -> Verdict:
        model = self._model.with_replicas(tuple(replicas))
        outcome = simulate(model, columns)
        latency = {quantile: outcome.quantile(quantile) for quantile in self._slo.latency}
        late = self._slo.faults(latency)
        full = _overfull(model, loads)
        told = [f"{model.lines[line].name} has {load:.1%} of the work that it can do" for line, load in full.items()]
        worst = max(full, key=full.__getitem__) if full else None
        return Verdict(outcome, (*late, *told), self._most_waited_for(outcome) if worst is None else model.lines[worst].name)

    def _most_waited_for(self, outcome: Outcome) -> str:
        """By those who come too late."""
        late = outcome.late(min(self._slo.latency.values()))
        waits = outcome.waited[:, late].sum(axis=1)
        worst = int(np.argmax(waits))
        return SLOTS if outcome.for_slot[late].sum() > waits[worst] else self._model.lines[worst].name

    def fewest(self, columns: Columns, *, seconds: float, prices: Sequence[float]) -> tuple[int, ...]:
        """Raises InvalidRequestError when the promise cannot be kept; where stages share cores, the best there is."""
        self._check_possible(columns)
        part = self.part_of(columns)
        loads, least = self._loads(columns, seconds), self.bound(columns, seconds)
        found = self._trimmed(self._grown(least, part, loads), least, part, loads, prices)
        # The rest may bring other work than the densest part, which asks for more elsewhere.
        enough = found if len(part) == len(columns) else self._grown(found, columns, loads)
        return found if enough == found else self._trimmed(enough, found, columns, loads, prices)

    def part_of(self, columns: Columns) -> Columns:
        """What stands for all of them: the densest part, unless its work alone takes too long, which that of all does not."""
        part = excerpt(columns)
        return columns if self._late_alone(part) else part

    def bound(self, columns: Columns, seconds: float) -> tuple[int, ...]:
        """Fewer would have more to do than they can."""
        return tuple(min(at_least(load), most) for load, most in zip(self._loads(columns, seconds), self._most, strict=True))

    def _loads(self, columns: Columns, seconds: float) -> list[float]:
        """Seconds of work a second for each line."""
        return [work / seconds for work in work_of(self._model, columns)]

    def _late_alone(self, columns: Columns) -> list[str]:
        """What breaks the promise where nobody waits for another."""
        lines = tuple(replace(line, machine=None) for line in self._model.lines)
        outcome = simulate(replace(self._model, machines=(), lines=lines, slots=UNLIMITED), columns)
        return self._slo.faults({quantile: outcome.quantile(quantile) for quantile in self._slo.latency})

    def _check_possible(self, columns: Columns) -> None:
        if late := self._late_alone(columns):
            longest = self._model.lines[int(np.argmax(work_of(self._model, columns)))].name
            raise InvalidRequestError(
                f"slo: {late[0]} where no video waits for another, so no number of replicas helps; promise more time, or make "
                f"{longest} faster, which most of the work is for",
                field="slo",
            )

    def _grown(self, replicas: tuple[int, ...], columns: Columns, loads: Sequence[float]) -> tuple[int, ...]:
        while not (verdict := self._judge(replicas, columns, loads)).holds:
            outcome = verdict.outcome
            waits = outcome.waited[:, outcome.late(min(self._slo.latency.values()))].sum(axis=1)
            room = [line for line, most in enumerate(self._most) if replicas[line] < most]
            if not room or not waits[room].any():
                break
            line = max(room, key=waits.__getitem__)
            more = min(replicas[line] + max(replicas[line] // 50, 1), self._most[line])
            replicas = (*replicas[:line], more, *replicas[line + 1 :])
        return replicas

    def _trimmed(
        self, replicas: tuple[int, ...], least: tuple[int, ...], columns: Columns, loads: Sequence[float], prices: Sequence[float]
    ) -> tuple[int, ...]:
        """Without what is not needed, the dearest first, until no stage can do with one less."""
        if not self._judge(replicas, columns, loads).holds:
            return self._idle_given_back(replicas, least, columns, loads)
        before: tuple[int, ...] = ()
        while before != replicas:
            before = replicas
            for line in sorted(range(len(replicas)), key=prices.__getitem__, reverse=True):

                def does(count: int, line: int = line) -> bool:
                    return self._judge((*replicas[:line], count, *replicas[line + 1 :]), columns, loads).holds  # noqa: B023

                fewer = smallest(does, least[line], replicas[line])
                replicas = (*replicas[:line], fewer, *replicas[line + 1 :])
        return replicas

    def _idle_given_back(
        self, replicas: tuple[int, ...], least: tuple[int, ...], columns: Columns, loads: Sequence[float]
    ) -> tuple[int, ...]:
        """Where the promise cannot be kept, more replicas than the fewest are kept only if they bring it nearer."""
        tightest = min(self._slo.latency)
        grown, few = (self._judge(each, columns, loads).outcome.quantile(tightest) for each in (replicas, least))
        return replicas if grown < few * 0.99 else least


def smallest(does: Callable[[int], bool], least: int, most: int) -> int:
    """The smallest that does, between one that may and one that does."""
    while least < most:
        middle = (least + most) // 2
        if does(middle):
            most = middle
        else:
            least = middle + 1
    return most


def find_break(setting: Setting, search: Search, replicas: Sequence[int]) -> Break:
    """Denser and denser traffic until the promise breaks."""

    def judge(factor: float) -> Verdict:
        traffic = setting.traffic.scaled(factor)
        columns = traffic.columns()
        return search.judge(replicas, columns, traffic.seconds, search.part_of(columns))

    kept, broken = 1.0, None
    for factor in (1.0, *DENSER):
        if not (verdict := judge(factor)).holds:
            broken = factor, verdict
            break
        kept = factor
    if broken is None:
        return Break(None, DENSER[-1])
    factor, verdict = broken
    while factor > kept * CLOSE:
        middle = (kept + factor) / 2
        if (found := judge(middle)).holds:
            kept = middle
        else:
            factor, verdict = middle, found
    return Break(factor, factor, verdict.at_fault, verdict.faults)


def _monolith(setting: Setting, slo: Slo, kind: Monolith, columns: Columns) -> MonolithPlan:
    memory = setting.memory_gb
    if kind.memory_gb is not None and memory > kind.memory_gb:
        told = f"the weights of all stages are {memory:g} GB, and one {kind.accelerator} has {kind.memory_gb:g}"
        return MonolithPlan(kind, memory, cannot=told)
    search = Search(setting.monolith(kind), slo, most=[NEVER])
    try:
        replicas = search.fewest(columns, seconds=setting.traffic.seconds, prices=[kind.price_per_hour])
    except InvalidRequestError as error:
        return MonolithPlan(kind, memory, cannot=error.message.removeprefix("slo: "))
    return MonolithPlan(kind, memory, replicas[0], search.judge(replicas, columns, setting.traffic.seconds))


def excerpt(columns: Columns) -> Columns:
    """The densest part of so many arrivals that they can be simulated again and again."""
    if len(columns) <= EXCERPT:
        return columns
    spans = columns.at[EXCERPT:] - columns.at[:-EXCERPT]
    begin = int(np.argmin(spans))
    part = slice(begin, begin + EXCERPT)
    start = columns.at[begin]
    return Columns(columns.at[part] - start, columns.kind[part], columns.cancelled_at[part] - start)


def _overfull(model: Model, loads: Sequence[float]) -> dict[int, float]:
    """Lines that more work comes to than they can do, and how much of it; where cores are shared, the one with most of their work."""
    full = {place: load / line.replicas for place, (load, line) in enumerate(zip(loads, model.lines, strict=True))}
    over = {place: load for place, load in full.items() if load > FULL}
    for number, machine in enumerate(model.machines):
        on_it = {place: each * model.lines[place].threads for place, each in enumerate(loads) if model.lines[place].machine == number}
        if (load := sum(on_it.values()) / machine.cores) > FULL:
            over |= {max(on_it, key=on_it.__getitem__): load}
    return over
