"""jobs in the table -> what the dispatchers tell of them"""

from pathlib import Path

import pytest

from deployments import telling
from deployments.jobs.database import Database, open_database
from deployments.jobs.live import LiveJobs
from deployments.jobs.records import Claim, QueueLimits
from deployments.jobs.store import JobStore
from deployments.live_work import LiveWork
from deployments.telling import Teller
from deployments.work import Graph, Task, to_text
from tests.deployments.jobs.samples import claim, create

UNITS = {"text": ("text_encoder", 10.0), "draft": ("denoiser", 800.0), "refine": ("refiner", 400.0)}
WORK = to_text(Graph("miniature", "", tuple(Task(step, "miniature", stage, units, (), 0) for step, (stage, units) in UNITS.items())))


def receipt(step: str, seconds: float) -> dict[str, object]:
    return {"step": step, "stage": UNITS[step][0], "run_seconds": seconds, "cache_hit": False}


LINES = [receipt("text", 0.1), receipt("draft", 8.0), receipt("refine", 2.0)]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, QueueLimits())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, LiveWork]:
    found: dict[str, LiveWork] = {}
    monkeypatch.setattr(telling, "tell_live_work", found.__setitem__)
    return found


def test_what_ended_jobs_took_is_what_live_ones_will(database: Database, store: JobStore, told: dict[str, LiveWork]) -> None:
    create(store, work=WORK)
    store.finish(Claim.of(claim(store)), {}, LINES, None)
    for _ in range(3):
        create(store, work=WORK)
    job = Claim.of(claim(store))
    store.report(job, progress={"step": "draft", "done": 3, "total": 4}, stages=LINES[:1])
    Teller(LiveJobs(database), ["miniature"]).tell()
    waiting, at_work = sorted(told["miniature"], key=lambda group: group.jobs, reverse=True)
    assert (waiting.jobs, at_work.jobs) == (2, 1)
    assert waiting.seconds == {"text_encoder": pytest.approx(0.2), "denoiser": pytest.approx(16.0), "refiner": pytest.approx(4.0)}
    assert at_work.seconds == {"denoiser": pytest.approx(2.0), "refiner": pytest.approx(2.0)}


def test_nothing_is_told_of_a_family_until_one_of_its_jobs_has_ended(
    database: Database, store: JobStore, told: dict[str, LiveWork]
) -> None:
    teller = Teller(LiveJobs(database), ["miniature", "ltx2"])
    teller.tell()
    for _ in range(2):
        create(store, work=WORK)
    teller.tell()
    assert told == {}  # so that Serve counts, from the first job on
    store.finish(Claim.of(claim(store)), {}, LINES, None)
    teller.tell()
    assert list(told) == ["miniature"] and told["miniature"][0].seconds["denoiser"] == pytest.approx(8.0)


def test_of_a_family_without_jobs_it_is_told_that_it_has_none(database: Database, store: JobStore, told: dict[str, LiveWork]) -> None:
    create(store, work=WORK)
    store.finish(Claim.of(claim(store)), {}, LINES, None)
    Teller(LiveJobs(database), ["miniature"]).tell()
    assert told == {"miniature": ()}


def test_a_job_teaches_once(database: Database, store: JobStore, told: dict[str, LiveWork]) -> None:
    teller = Teller(LiveJobs(database), ["miniature"])
    for seconds in (8.0, 800.0):
        create(store, work=WORK)
        store.finish(Claim.of(claim(store)), {}, [receipt("draft", seconds)], None)
        for _ in range(50):
            teller.tell()
    create(store, work=WORK)
    teller.tell()
    (group,) = told["miniature"]
    assert group.seconds["denoiser"] == pytest.approx(8.0 + 0.05 * 792.0)
