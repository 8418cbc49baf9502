"""a model -> event after event in the order of time -> what became of every job: for loops, slots and shared cores

All work on one machine goes at one pace, so its own clock runs at that pace and what is under way ends in the order of that clock,
however often the pace changes. What shares no cores runs on a clock that never slows.
"""

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from deployments.capacity.model import Machine, Model, Outcome
from deployments.capacity.traffic import Columns

# What happens to a job beside its visits; those are numbered from 0 on, two for each: on its way, and served.
COMES, CLAIMED, GONE = -1, -2, -3
NEVER = float("inf")


class Event(NamedTuple):
    """Something that is under way: when it ends by its machine's clock, of which job, what, and how many cores it wants."""

    ends: float
    number: int  # in the order in which things began, where two end at once
    job: int
    what: int
    threads: float


class Clock:
    """Of one machine (None: of what shares nothing)."""

    def __init__(self, machine: Machine | None) -> None:
        self._machine = machine
        self.events: list[Event] = []
        self._wanted, self._pace = 0.0, 1.0
        self._reads, self._since = 0.0, 0.0

    @property
    def due(self) -> float:
        """When the next event ends."""
        if not self.events:
            return NEVER
        ends = self.events[0].ends
        return ends if self._machine is None else self._since + (ends - self._reads) / self._pace

    def begin(self, now: float, seconds: float, number: int, job: int, what: int, threads: float) -> None:
        self._want(threads, now)
        heappush(self.events, Event((self._reads if self._machine else now) + seconds, number, job, what, threads))

    def end(self) -> Event:
        """The event that was due. What it wanted is still to be given back."""
        return heappop(self.events)

    def give_back(self, threads: float, now: float) -> None:
        self._want(-threads, now)

    def _want(self, threads: float, now: float) -> None:
        if self._machine is not None:
            self._reads += (now - self._since) * self._pace
            self._since = now
            self._wanted += threads
            self._pace = self._machine.pace(self._wanted)


class _Run:
    def __init__(self, model: Model, columns: Columns) -> None:
        self._model, self._columns = model, columns
        self._at = columns.at.tolist()
        self._kind = columns.kind.tolist()
        self._cancelled_at = columns.cancelled_at.tolist()
        self._seconds = [[drawn.tolist() for drawn in visits] for visits in model.service(columns)]
        self._place_in_kind = _places(columns, kinds=len(model.jobs))
        self._feeds = [_feeds(model, kind) for kind in range(len(model.jobs))]
        self._clocks = [Clock(None), *(Clock(machine) for machine in model.machines)]
        self._clock_of = [self._clocks[0 if line.machine is None else line.machine + 1] for line in model.lines]
        # The API works on the first machine that is shared, if there is one.
        self._office = self._clocks[1 if model.machines else 0]
        self._free = [line.replicas for line in model.lines]
        self._queues: list[deque[tuple[int, int]]] = [deque() for _ in model.lines]
        self._slots = dict.fromkeys(model.family, model.slots)
        self._unclaimed: dict[int, deque[int]] = {family: deque() for family in model.family}
        self._missing: dict[int, list[int]] = {}  # of each job at work: how many inputs each visit waits for
        self._left: dict[int, int] = {}  # and how many visits are not over
        self._under_way: dict[int, dict[int, tuple[Clock, float]]] = {}
        self._since: dict[tuple[int, int], float] = {}
        self._number = 0
        self._at_work = self._peak = 0
        jobs = len(columns)
        self._done = [float("nan")] * jobs
        self._for_slot = [0.0] * jobs
        self._waited = [[0.0] * jobs for _ in model.lines]
        self._busy = [0.0] * len(model.lines)
        self._ran = [[(0.0, 0)] * len(visits) for visits in model.jobs]

    def go(self) -> Outcome:
        for job, at in enumerate(self._at):
            self._play(until=at)
            self._begin(job, COMES, self._model.overhead.before, self._office, 1.0, now=at)
            if self._cancelled_at[job] < NEVER:
                self._clocks[0].begin(at, self._cancelled_at[job] - at, self._next(), job, GONE, 0.0)
        self._play(until=NEVER)
        return self._outcome()

    def _play(self, until: float) -> None:
        """What ends before then."""
        clocks = self._clocks
        while True:
            clock, now = clocks[0], clocks[0].due
            for other in clocks[1:]:
                if (due := other.due) < now:
                    clock, now = other, due
            if now > until or now == NEVER:
                return
            event = clock.end()
            self._happen(event, clock, now)

    def _happen(self, event: Event, clock: Clock, now: float) -> None:
        job, what = event.job, event.what
        if what == GONE:
            self._cancel(job, now)
            return
        under_way = self._under_way.get(job)
        if under_way is None or under_way.pop(what, None) is None:
            return  # it was cancelled; what it wanted was given back then
        clock.give_back(event.threads, now)
        if what == COMES:
            self._unclaimed[self._family(job)].append(job)
            self._for_slot[job] = now
            self._claim(self._family(job), now)
        elif what == CLAIMED:
            for visit, sources in enumerate(self._missing[job]):
                if not sources:
                    self._send(job, visit, now)
        elif what % 2:
            self._served(job, what // 2, now)
        else:
            self._queue(job, what // 2, now)

    def _claim(self, family: int, now: float) -> None:
        """Jobs in the order in which they came, as long as there are slots."""
        waiting = self._unclaimed[family]
        while waiting and self._slots[family]:
            job = waiting.popleft()
            if job not in self._under_way:
                continue
            self._slots[family] -= 1
            self._at_work += 1
            self._peak = max(self._peak, self._at_work)
            self._for_slot[job] = now - self._for_slot[job]
            visits = self._model.jobs[self._kind[job]]
            self._missing[job], self._left[job] = [len(visit.inputs) for visit in visits], len(visits)
            self._begin(job, CLAIMED, self._model.overhead.held, self._office, 1.0, now=now)

    def _send(self, job: int, visit: int, now: float) -> None:
        asked = self._model.jobs[self._kind[job]][visit]
        self._begin(job, 2 * visit, asked.hop, self._clock_of[asked.line], 1.0, now=now)

    def _queue(self, job: int, visit: int, now: float) -> None:
        line = self._model.jobs[self._kind[job]][visit].line
        self._since[job, visit] = now
        self._queues[line].append((job, visit))
        self._serve(line, now)

    def _serve(self, line: int, now: float) -> None:
        """Those who came first, as long as a replica is free; who has gone meanwhile is passed over."""
        queue = self._queues[line]
        while queue and self._free[line]:
            job, visit = queue.popleft()
            if job not in self._under_way:
                continue
            self._free[line] -= 1
            self._waited[line][job] += now - self._since[job, visit]
            self._since[job, visit] = now
            kind = self._kind[job]
            takes = self._seconds[kind][visit][self._place_in_kind[job]]
            self._begin(job, 2 * visit + 1, takes, self._clock_of[line], self._model.lines[line].threads, now=now)

    def _served(self, job: int, visit: int, now: float) -> None:
        kind = self._kind[job]
        total, times = self._ran[kind][visit]
        self._ran[kind][visit] = total + now - self._since[job, visit], times + 1
        self._leave(job, visit, now)
        missing = self._missing[job]
        for fed in self._feeds[kind][visit]:
            missing[fed] -= 1
            if not missing[fed]:
                self._send(job, fed, now)
        self._left[job] -= 1
        if not self._left[job]:
            self._finish(job, now)
            self._done[job] = now + self._model.overhead.after

    def _leave(self, job: int, visit: int, now: float) -> None:
        line = self._model.jobs[self._kind[job]][visit].line
        self._busy[line] += now - self._since.pop((job, visit))
        self._free[line] += 1
        self._serve(line, now)

    def _finish(self, job: int, now: float) -> None:
        """Its slot is somebody else's."""
        del self._under_way[job], self._missing[job], self._left[job]
        self._slots[self._family(job)] += 1
        self._at_work -= 1
        self._claim(self._family(job), now)

    def _cancel(self, job: int, now: float) -> None:
        under_way = self._under_way.get(job)
        if under_way is None:
            return  # it is finished
        for what, (clock, threads) in under_way.items():
            clock.give_back(threads, now)
            if what > 0 and what % 2:
                self._freed_by(job, what // 2, now)
        for visit in range(len(self._model.jobs[self._kind[job]])):
            if (since := self._since.pop((job, visit), None)) is not None:
                self._waited[self._model.jobs[self._kind[job]][visit].line][job] += now - since
        if job in self._missing:
            self._finish(job, now)
        else:
            del self._under_way[job]
            self._for_slot[job] = 0.0
        for line in range(len(self._free)):
            self._serve(line, now)

    def _freed_by(self, job: int, visit: int, now: float) -> None:
        line = self._model.jobs[self._kind[job]][visit].line
        self._busy[line] += now - self._since.pop((job, visit))
        self._free[line] += 1

    def _begin(self, job: int, what: int, seconds: float, clock: Clock, threads: float, *, now: float) -> None:
        self._under_way.setdefault(job, {})[what] = clock, threads
        clock.begin(now, seconds, self._next(), job, what, threads)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _family(self, job: int) -> int:
        return self._model.family[self._kind[job]]

    def _outcome(self) -> Outcome:
        ran = [[total / times if times else 0.0 for total, times in visits] for visits in self._ran]
        busy, waited = np.array(self._busy), np.array(self._waited)
        return Outcome(self._columns, np.array(self._done), waited, np.array(self._for_slot), busy, ran, self._peak)


def _places(columns: Columns, *, kinds: int) -> list[int]:
    """The number of each job among those of its class."""
    places = np.empty(len(columns), dtype=np.int64)
    for kind in range(kinds):
        chosen = columns.kind == kind
        places[chosen] = np.arange(int(chosen.sum()))
    return places.tolist()


def _feeds(model: Model, kind: int) -> list[list[int]]:
    """For each visit of a class, the visits that wait for it, once for each time that they do."""
    visits = model.jobs[kind]
    return [[fed for fed, visit in enumerate(visits) for each in visit.inputs if each == source] for source in range(len(visits))]


def run_events(model: Model, columns: Columns) -> Outcome:
    return _Run(model, columns).go()
