"""jobs that wait, are at work, have ended -> what is read of them"""

import pytest

from deployments.jobs.database import Database
from deployments.jobs.live import Alike, LiveJobs
from deployments.jobs.records import Claim
from deployments.jobs.store import JobStore
from tests.deployments.jobs.samples import claim, create, multiply, pass_time

WORK, OTHER = '[["text","text_encoder",1.0]]', '[["draft","denoiser",2.0]]'
LINES = [{"step": "text", "stage": "text_encoder", "run_seconds": 0.5, "cache_hit": False}]


@pytest.fixture
def live(database: Database) -> LiveJobs:
    return LiveJobs(database)


def test_jobs_that_wait_for_the_same_work_are_counted(database: Database, store: JobStore, live: LiveJobs) -> None:
    multiply(database, create(store, work=WORK), 30)
    create(store, "bob", work=OTHER)
    create(store, work=None)  # an older version's
    waiting, begun = live.read()
    assert sorted(waiting, key=lambda alike: alike.count) == [Alike("miniature", OTHER, 1), Alike("miniature", WORK, 31)]
    assert begun == []


def test_of_a_job_at_work_is_told_how_far_it_is(store: JobStore, live: LiveJobs) -> None:
    create(store, work=WORK)
    store.report(Claim.of(claim(store)), progress={"step": "draft", "done": 3, "total": 8}, stages=LINES)
    waiting, (job,) = live.read()
    assert waiting == [] and (job.work, job.stages, job.progress["done"]) == (WORK, LINES, 3)


def test_a_job_that_waits_again_keeps_what_is_done(store: JobStore, live: LiveJobs) -> None:
    create(store, work=WORK)
    job = Claim.of(claim(store))
    store.report(job, stages=LINES)
    store.release(job)
    waiting, (begun,) = live.read()
    assert waiting == [] and begun.stages == LINES


def test_those_that_ended_well_are_told_once_the_latest_last(database: Database, store: JobStore, live: LiveJobs) -> None:
    ids = [create(store, work=WORK).id for _ in range(4)]
    for _ in ids[:3]:
        store.finish(Claim.of(claim(store)), {}, LINES, None)
    store.fail(Claim.of(claim(store)), {"code": "internal", "message": ""}, LINES)
    for age, number in enumerate((2, 1, 0)):
        pass_time(database, ids[number], 10.0 * age, "completed_at")
    everything = live.done_since(0.0, most=10)
    assert [done.stages for done in everything] == [LINES] * 3
    assert sorted(everything, key=lambda done: done.at) == everything
    assert live.done_since(everything[0].at, most=10) == everything[1:]
    assert live.done_since(0.0, most=1) == everything[2:]
    assert live.done_since(everything[-1].at, most=10) == []
