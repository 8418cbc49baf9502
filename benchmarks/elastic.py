"""a setting, replicas that come and go -> what becomes of every job, and how long replicas were there

The simulation of `deployments/capacity` has fixed replicas, which is what makes it fast; here they start cold and drain.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from deployments.capacity.setting import Setting
from deployments.demand import Rates, group, seconds_left
from deployments.live_work import LiveWork

TICK = 1.0


@dataclass(eq=False)
class Replica:
    """Of one line; `ends` is when its step is done (None: it has none)."""

    began: float
    is_ready: bool = False
    is_leaving: bool = False
    step: tuple[int, int] | None = None


@dataclass
class Line:
    """A stage: steps wait for the first replica that is free."""

    stage: str
    most: int
    cold_start: float
    target: int = 0
    replicas: list[Replica] = field(default_factory=list)
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    ongoing: int = 0  # steps that were sent and are not over
    replica_seconds: float = 0.0
    busy_seconds: float = 0.0
    _seen: deque[int] = field(default_factory=lambda: deque(maxlen=600))

    @property
    def ready(self) -> int:
        return sum(replica.is_ready and not replica.is_leaving for replica in self.replicas)

    def look(self) -> None:
        self._seen.append(self.ongoing)

    def ongoing_of_late(self, seconds: float) -> float:
        """On average."""
        latest = list(self._seen)[-max(round(seconds / TICK), 1) :]
        return sum(latest) / len(latest) if latest else 0.0


class Elastic:
    """Jobs in the order in which they come, as many at once as the setting has slots."""

    def __init__(self, setting: Setting, lines: Sequence[Line], *, replicas: Mapping[str, int]) -> None:
        self.lines, self._graphs = tuple(lines), setting.graphs
        self._columns, model = setting.traffic.columns(), setting.model()
        self._visits, self._overhead, self._service = model.jobs, model.overhead, model.service(self._columns)
        self._kind = self._columns.kind.tolist()
        counts = [0] * len(self._graphs)
        self._place = [counts.__setitem__(kind, counts[kind] + 1) or counts[kind] - 1 for kind in self._kind]
        self._free_slots, self._queue = setting.slots, deque[int]()
        self._at_work: dict[int, set[int]] = {}  # of each claimed job the steps that are over
        self._running: dict[tuple[int, int], float] = {}  # since when
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number, self._left = 0, len(self._columns)
        self.now, self.latency, self.rates = 0.0, list[float](), Rates()
        self.every_second: Callable[[], None] = lambda: None
        for line in self.lines:
            line.target = replicas[line.stage]
            line.replicas = [Replica(0.0, is_ready=True) for _ in range(line.target)]

    def go(self) -> None:
        for job, at in enumerate(self._columns.at.tolist()):
            self._at(at + self._overhead.before, lambda job=job: self._come(job))
        self._at(0.0, self._tick)
        while self._events and self._left:
            self.now, _, happen = heappop(self._events)
            happen()
        for line in self.lines:
            line.replica_seconds += sum(self.now - replica.began for replica in line.replicas)

    def scale(self, stage: str, target: int) -> None:
        """More start cold; fewer: those that have not started, then idle ones, and busy ones when their step is done."""
        line = next(line for line in self.lines if line.stage == stage)
        line.target = target
        staying = [replica for replica in line.replicas if not replica.is_leaving]
        for _ in range(target - len(staying)):
            replica = Replica(self.now)
            line.replicas.append(replica)
            self._at(self.now + line.cold_start, lambda line=line, replica=replica: self._start(line, replica))
        for replica in sorted(staying, key=lambda each: (each.is_ready, each.step is not None))[: max(len(staying) - target, 0)]:
            replica.is_leaving = True
            if replica.step is None:
                self._end(line, replica)

    def live_work(self) -> LiveWork:
        """As the dispatchers tell it: of what waits in the queue, and of what is before those at work."""
        queued = [seconds_left(self._graphs[self._kind[job]].tasks, self.rates) for job in self._queue]
        return group((1, left) for left in (*queued, *(self._left_of(job) for job in self._at_work)))

    def _left_of(self, job: int) -> dict[str, float]:
        graph = self._graphs[self._kind[job]]
        ended = [graph.tasks[visit].step for visit in self._at_work[job]]
        running = [visit for visit in range(len(graph.tasks)) if (job, visit) in self._running]
        shares = {graph.tasks[visit].step: (self.now - self._running[job, visit]) / self._takes(job, visit) for visit in running}
        return seconds_left(graph.tasks, self.rates, ended=ended, shares=shares)

    def _takes(self, job: int, visit: int) -> float:
        return float(self._service[self._kind[job]][visit][self._place[job]])

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heappush(self._events, (when, self._number, happen))

    def _tick(self) -> None:
        for line in self.lines:
            line.look()
        self.every_second()
        self._at(self.now + TICK, self._tick)

    def _come(self, job: int) -> None:
        self._queue.append(job)
        self._claim()

    def _claim(self) -> None:
        while self._queue and self._free_slots:
            job = self._queue.popleft()
            self._free_slots -= 1
            self._at_work[job] = set()
            visits = self._visits[self._kind[job]]
            for visit, asked in enumerate(visits):
                self.lines[asked.line].ongoing += 1
                if not asked.inputs:
                    self._send(job, visit, delay=self._overhead.held)

    def _send(self, job: int, visit: int, *, delay: float = 0.0) -> None:
        asked = self._visits[self._kind[job]][visit]
        self._at(self.now + delay + asked.hop, lambda: self._wait(self.lines[asked.line], (job, visit)))

    def _wait(self, line: Line, step: tuple[int, int]) -> None:
        line.waiting.append(step)
        self._serve(line)

    def _serve(self, line: Line) -> None:
        for replica in line.replicas:
            if line.waiting and replica.is_ready and replica.step is None and not replica.is_leaving:
                replica.step = step = line.waiting.popleft()
                self._running[step] = self.now
                self._at(self.now + self._takes(*step), lambda replica=replica: self._done(line, replica))

    def _start(self, line: Line, replica: Replica) -> None:
        if replica in line.replicas:
            replica.is_ready = True
            self._serve(line)

    def _end(self, line: Line, replica: Replica) -> None:
        line.replicas.remove(replica)
        line.replica_seconds += self.now - replica.began

    def _done(self, line: Line, replica: Replica) -> None:
        assert replica.step is not None
        (job, visit), replica.step = replica.step, None
        took = self.now - self._running.pop((job, visit))
        line.busy_seconds += took
        line.ongoing -= 1
        task = self._graphs[self._kind[job]].tasks[visit]
        self.rates.note(task.family, task.stage, units=task.units, seconds=took)
        if replica.is_leaving:
            self._end(line, replica)
        self._over(job, visit)
        self._serve(line)

    def _over(self, job: int, visit: int) -> None:
        over, visits = self._at_work[job], self._visits[self._kind[job]]
        over.add(visit)
        for fed, asked in enumerate(visits):
            if visit in asked.inputs and over.issuperset(asked.inputs):
                self._send(job, fed)
        if len(over) == len(visits):
            del self._at_work[job]
            self.latency.append(self.now + self._overhead.after - float(self._columns.at[job]))
            self._left -= 1
            self._free_slots += 1
            self._claim()
