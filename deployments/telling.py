"""live jobs in the table -> the seconds of work that they still want of each stage, where the policy of autoscaling reads them"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from deployments.demand import Rates, group, seconds_left
from deployments.jobs.live import Begun, LiveJobs
from deployments.live_work import LiveWork, tell_live_work
from deployments.work import from_text

LEARNED_AT_ONCE = 200  # of the jobs that ended; at the start, the latest before it


class Teller:
    """Every dispatcher has one, and all tell the same: it is in the table."""

    def __init__(self, jobs: LiveJobs, families: Collection[str]) -> None:
        self._jobs, self._families = jobs, families
        self._rates, self._learned_at = Rates(), 0.0

    def tell(self) -> None:
        """Asks the database and Ray's head, so not in an event loop.

        Of a family none of whose jobs has ended nothing is told, not even that it has none: that would hold when the first ones come. Until
        then Serve's own count decides.
        """
        self._learn()
        work = self._live_work()
        for family in filter(self._rates.know, self._families):
            tell_live_work(family, work.get(family, ()))

    def _learn(self) -> None:
        for done in self._jobs.done_since(self._learned_at, most=LEARNED_AT_ONCE):
            self._rates.learn(from_text(done.family, done.work), done.stages)
            self._learned_at = done.at

    def _live_work(self) -> Mapping[str, LiveWork]:
        waiting, begun = self._jobs.read()
        wanted: dict[str, list[tuple[int, Mapping[str, float]]]] = defaultdict(list)
        for alike in waiting:
            wanted[alike.family].append((alike.count, seconds_left(from_text(alike.family, alike.work), self._rates)))
        for job in begun:
            wanted[job.family].append((1, self._left_of(job)))
        return {family: group(jobs) for family, jobs in wanted.items()}

    def _left_of(self, job: Begun) -> dict[str, float]:
        ended = [line["step"] for line in job.stages]
        return seconds_left(from_text(job.family, job.work), self._rates, ended=ended, shares=dict(_shares(job)))


def _shares(job: Begun) -> Iterator[tuple[str, float]]:
    if total := job.progress.get("total"):
        yield job.progress["step"], job.progress["done"] / total
