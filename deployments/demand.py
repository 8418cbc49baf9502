"""what jobs take and receipts -> seconds of work that live jobs still want of each stage

Work is counted in the units of `deployments/work.py`. What a unit takes is told twice on purpose: capacity plans ahead with times that were
calibrated, here is learned what replicas take now, with the traffic, the devices and the neighbours that there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.live_work import Group, LiveWork
from deployments.work import Task

NEWEST = 0.05  # what the latest call counts beside all before it
FLOOR_SECONDS = 0.02  # a call takes at least that, however small it is


@dataclass
class Rates:
    """Seconds a unit takes by family and stage: the latest calls' seconds over their units, the older the less they count."""

    floor: float = FLOOR_SECONDS
    _sums: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)  # seconds, units

    def note(self, family: str, stage: str, *, units: float, seconds: float) -> None:
        """A call that was finished. One without work says nothing of what work takes."""
        if units > 0:
            spent, done = self._sums.get((family, stage), (seconds, units))
            self._sums[family, stage] = spent + NEWEST * (seconds - spent), done + NEWEST * (units - done)

    def learn(self, tasks: Iterable[Task], lines: Iterable[Mapping[str, Any]]) -> None:
        """From a job's receipts as its row has them; a result that was only found took nobody's time."""
        by_step = {task.step: task for task in tasks}
        for line in lines:
            if not line["cache_hit"] and (task := by_step.get(line["step"])) is not None:
                self.note(task.family, task.stage, units=task.units, seconds=line["run_seconds"])

    def know(self, family: str) -> bool:
        """Whether anything was learned of it. Otherwise every call counts as the smallest there is."""
        return any(known == family for known, _ in self._sums)

    def seconds(self, task: Task) -> float:
        """What a call will take. A stage that nobody has seen at work takes what the family's others take for a unit."""
        if (known := self._sums.get((task.family, task.stage))) is None:
            sums = [each for (family, _), each in self._sums.items() if family == task.family]
            known = sum(spent for spent, _ in sums), sum(done for _, done in sums)
        spent, done = known
        return max(task.units * spent / done if done else 0.0, self.floor)


def seconds_left(
    tasks: Iterable[Task], rates: Rates, *, ended: Iterable[str] = (), shares: Mapping[str, float] | None = None
) -> dict[str, float]:
    """By stage, of the steps that have not `ended`; `shares` say how much of those that run is done. Who is through is left out."""
    over, behind = set(ended), shares or {}
    left: dict[str, float] = {}
    for task in tasks:
        if task.step not in over:
            left[task.stage] = left.get(task.stage, 0.0) + rates.seconds(task) * (1 - min(behind.get(task.step, 0.0), 1.0))
    return left


def group(jobs: Iterable[tuple[int, Mapping[str, float]]]) -> LiveWork:
    """So many jobs alike with the seconds that each wants of every stage -> those with the same stages together."""
    groups: dict[frozenset[str], Group] = {}
    for count, left in jobs:
        known = groups.get(frozenset(left), Group(0.0, dict.fromkeys(left, 0.0)))
        seconds = {stage: spent + count * left[stage] for stage, spent in known.seconds.items()}
        groups[frozenset(left)] = Group(known.jobs + count, seconds)
    return tuple(found for stages, found in groups.items() if stages)
