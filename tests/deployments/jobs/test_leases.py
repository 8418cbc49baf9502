"""workers that die, stall or race -> every job is done once, and nobody finishes what is no longer his"""

import time
from contextlib import ExitStack
from itertools import chain

import pytest
from sqlalchemy import func, select

from deployments.jobs.database import Database
from deployments.jobs.records import COMPLETED, FAILED, IN_PROGRESS, QUEUED, Claim, Job
from deployments.jobs.store import JobStore
from deployments.jobs.tables import outbox
from tests.deployments.jobs.samples import FAMILIES, LEASE, LOST, claim, create, expire_lease, multiply, running
from tests.deployments.jobs.workers import claim_all, make_all, stall, stop_before_commit, working

MAX_ATTEMPTS = 3


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def found(store: JobStore, id: str) -> Job:
    job = store.get(id)
    assert job is not None
    return job


def test_a_claim_that_is_not_the_rows_changes_nothing(store: JobStore) -> None:
    create(store)
    job = claim(store)
    held = Claim.of(job)
    for stale in (Claim(job.id, 2, "one"), Claim(job.id, 1, "two"), Claim("video_0", 1, "one")):
        assert store.heartbeat([stale, held], LEASE) == {held}
        assert not store.pin(stale, "w") and not store.report(stale, {"percent": 1}) and not store.finish(stale, {}, [], None)
        assert not store.fail(stale, LOST, []) and not store.release(stale) and not store.retry(stale, LOST, MAX_ATTEMPTS, 0.0)
    assert store.changed({job.id: job.version}).jobs == []


def test_a_heartbeat_renews_only_what_still_holds(store: JobStore, database: Database) -> None:
    for _ in range(3):
        create(store)
    kept, lost, cancelled = (Claim.of(claim(store)) for _ in range(3))
    expire_lease(database, lost.id)
    store.reap(MAX_ATTEMPTS)
    store.cancel("ada", cancelled.id)
    before = found(store, kept.id).lease_until or 0.0
    assert store.heartbeat([kept, lost, cancelled], 2 * LEASE) == {kept}
    assert (found(store, kept.id).lease_until or 0.0) - before == pytest.approx(LEASE, abs=5)
    assert store.heartbeat([], LEASE) == set()


def test_a_lease_that_holds_is_not_taken_back(store: JobStore) -> None:
    create(store)
    job = claim(store)
    assert store.reap(MAX_ATTEMPTS) == []
    assert found(store, job.id).status == IN_PROGRESS


def test_an_expired_lease_returns_the_job_to_the_queue_and_fences_its_worker(store: JobStore, database: Database) -> None:
    create(store)
    first = claim(store, "one")
    expire_lease(database, first.id)
    assert [(job.id, job.status, job.owner) for job in store.reap(MAX_ATTEMPTS)] == [(first.id, QUEUED, None)]
    second = claim(store, "one")
    assert (second.id, second.attempt) == (first.id, 2)
    assert not store.finish(Claim.of(first), {"attempt": 1}, [], None)
    assert store.finish(Claim.of(second), {"attempt": 2}, [], None)
    assert found(store, first.id).output == {"attempt": 2}


def test_a_late_heartbeat_keeps_a_job_that_nobody_has_taken_back(store: JobStore, database: Database) -> None:
    create(store)
    held = Claim.of(claim(store))
    expire_lease(database, held.id)
    assert store.heartbeat([held], LEASE) == {held}
    assert store.reap(MAX_ATTEMPTS) == []


def test_a_job_fails_for_good_when_so_many_workers_were_lost(store: JobStore, database: Database) -> None:
    job = create(store)
    for _ in range(MAX_ATTEMPTS):
        assert found(store, job.id).status == QUEUED
        claim(store)
        expire_lease(database, job.id)
        store.reap(MAX_ATTEMPTS)
    failed = found(store, job.id)
    assert failed.status == FAILED and failed.error is not None and failed.error["code"] == "worker_lost"
    assert failed.completed_at is not None and failed.expires_at is not None


def test_workers_that_are_known_to_be_lost_count_like_those_that_fell_silent(store: JobStore, database: Database) -> None:
    job = create(store)
    assert store.retry(Claim.of(claim(store)), LOST, MAX_ATTEMPTS, 0.0)
    assert (found(store, job.id).status, found(store, job.id).error) == (QUEUED, None)
    claim(store)
    expire_lease(database, job.id)
    store.reap(MAX_ATTEMPTS)
    assert store.retry(Claim.of(claim(store)), LOST, MAX_ATTEMPTS, 0.0)
    assert (found(store, job.id).status, found(store, job.id).error) == (FAILED, LOST)


def test_a_job_given_back_in_order_costs_no_attempt(store: JobStore) -> None:
    job = create(store)
    attempts: list[int] = []
    for _ in range(2 * MAX_ATTEMPTS):
        held = Claim.of(claim(store))
        attempts.append(held.attempt)
        assert store.release(held) and not store.release(held)
    assert attempts == [1, 2, 3, 4, 5, 6]
    assert store.retry(Claim.of(claim(store)), LOST, MAX_ATTEMPTS, 0.0) and found(store, job.id).status == QUEUED


def test_processes_that_claim_at_once_never_get_the_same_job(store: JobStore, database: Database) -> None:
    multiply(database, create(store), 20)
    multiply(database, create(store, "bob"), 20)
    with ExitStack() as stack:
        workers = [stack.enter_context(working(claim_all, url_of(database), str(number))) for number in range(3)]
        claimed = [worker.hear() for worker in workers]
    everything = list(chain.from_iterable(claimed))
    assert len(everything) == len(set(everything)) == 42 and set(everything) == running(database)


def test_a_worker_killed_in_mid_claim_leaves_the_job_as_it_was(store: JobStore, database: Database) -> None:
    job = create(store)
    create(store, "bob")
    with working(stop_before_commit, url_of(database)) as worker:
        assert worker.hear() == "claiming"
        assert found(store, job.id) == job
        worker.kill()
    assert [claim(store).tenant for _ in range(2)] == ["ada", "bob"]
    assert found(store, job.id).attempt == 1


def test_a_stalled_worker_cannot_finish_what_another_one_has(store: JobStore, database: Database) -> None:
    create(store)
    with working(stall, url_of(database), 0.1) as worker:
        held = worker.hear()
        deadline = time.monotonic() + 20
        while not store.reap(MAX_ATTEMPTS) and time.monotonic() < deadline:
            time.sleep(0.02)
        second = claim(store, "two")
        assert second.id == held.id
        worker.pipe.send("go on")
        assert worker.hear() == (set(), False)
    assert store.finish(Claim.of(second), {"by": "two"}, [], None)
    assert found(store, held.id).output == {"by": "two"}


def test_every_job_is_finished_exactly_once_though_workers_are_killed(store: JobStore, database: Database) -> None:
    multiply(database, create(store, webhook_url="https://ada.example/hook"), 30)
    multiply(database, create(store, "bob", webhook_url="https://bob.example/hook"), 30)
    with ExitStack() as stack:
        doomed = [stack.enter_context(working(make_all, url_of(database), owner, 0.5)) for owner in ("one", "two")]
        for worker in doomed:
            assert all(worker.hear() is not None for _ in range(6))
            worker.kill()
        survivor = stack.enter_context(working(make_all, url_of(database), "survivor", 0.5))
        while survivor.hear() is not None:
            pass
    ended = [*store.list("ada", None, 99, "asc")[0], *store.list("bob", None, 99, "asc")[0]]
    assert [job.status for job in ended] == [COMPLETED] * 62
    assert {job.owner for job in ended} == {"one", "two", "survivor"}
    assert all(job.output == {"owner": job.owner, "attempt": job.attempt} for job in ended)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(outbox)) == 62
    assert store.claim("late", LEASE, FAMILIES) is None
