"""jobs asked for -> claimed -> finished, failed, cancelled, deleted, listed, past their time"""

import dataclasses
import time
from typing import Literal

import pytest

from aiprod_components.errors import ConflictError, NotFoundError
from deployments.jobs.database import Database
from deployments.jobs.records import CANCELLED, COMPLETED, FAILED, IN_PROGRESS, QUEUED, Changes, Claim, QueueLimits
from deployments.jobs.store import JobStore
from tests.deployments.jobs.samples import LEASE, LOST, claim, create, expire_lease, new_job, pass_time

RECEIPT = {"step": "prompt", "stage": "text_encoder", "replica": "abc", "queued_seconds": 0.01, "run_seconds": 0.02, "attempt": 1}
OUTPUT = {"location": "videos/1/1/video.mp4"}


def test_a_new_job_is_stored_as_it_was_asked_for(store: JobStore) -> None:
    asked = new_job(webhook_url="https://ada.example/hook", idempotency_key="k", body_hash="h", remixed_from="video_0", priority=-3)
    job, _ = store.create(asked)
    told = dataclasses.asdict(asked)
    del told["work"]  # which only those read who tell what live jobs want
    assert {name: getattr(job, name) for name in told} == told
    assert (job.status, job.attempt, job.owner, job.progress, job.stages, job.error, job.output) == (QUEUED, 0, None, {}, [], None, None)
    assert abs(job.created_at - time.time()) < 5
    assert store.get(job.id) == store.get_owned("ada", job.id) == job


def test_numbers_are_floats_on_every_database(store: JobStore) -> None:
    job = create(store, cost=3.0)
    assert type(job.cost) is float and type(job.created_at) is float


def test_somebody_elses_job_is_none(store: JobStore) -> None:
    job = create(store)
    assert store.get_owned("eve", job.id) is None
    assert store.cancel("eve", job.id) is None
    assert store.delete("eve", job.id) is None
    assert store.get(job.id) == job


def test_a_name_that_no_database_holds_is_nobodys(store: JobStore) -> None:
    for name in ("video_\0", "\ud800"):
        assert store.get(name) is store.get_owned(name, name) is store.cancel("ada", name) is store.delete("ada", name) is None
        assert store.queue_positions([name]) == {}
    job = create(store, idempotency_key="a\0\ud800", body_hash="h")
    assert store.create(new_job(idempotency_key="a\0\ud800", body_hash="h")) == (job, True)


def test_a_job_goes_from_the_queue_to_its_video(store: JobStore) -> None:
    waiting = create(store)
    working = claim(store)
    assert (working.id, working.status, working.attempt, working.owner) == (waiting.id, IN_PROGRESS, 1, "one")
    assert working.lease_until is not None and working.started_at is not None
    assert working.lease_until - working.started_at == pytest.approx(LEASE, abs=1)
    held = Claim.of(working)
    assert store.pin(held, "weights-1")
    assert store.report(held, progress={"percent": 40}, stages=[RECEIPT])
    assert store.finish(held, OUTPUT, [RECEIPT, RECEIPT], retention_seconds=3600)
    done = store.get(waiting.id)
    assert done is not None and done.completed_at is not None and done.expires_at is not None
    assert (done.status, done.output, done.stages, done.fingerprint) == (COMPLETED, OUTPUT, [RECEIPT, RECEIPT], "weights-1")
    assert done.expires_at - done.completed_at == pytest.approx(3600, abs=1)
    assert (done.lease_until, done.version) == (None, 5)
    assert store.claim("one", LEASE, ["miniature"]) is None


def test_a_claimed_job_is_shown_as_queued_until_a_stage_has_started(store: JobStore) -> None:
    create(store)
    job = claim(store)
    assert (job.status, job.shown_status) == (IN_PROGRESS, QUEUED)
    assert store.counts() == {QUEUED: 1, IN_PROGRESS: 0}
    store.report(Claim.of(job))
    begun = store.get(job.id)
    assert begun is not None and begun.shown_status == IN_PROGRESS
    assert store.counts() == {QUEUED: 0, IN_PROGRESS: 1}


def test_a_report_leaves_alone_what_it_does_not_tell(store: JobStore) -> None:
    create(store)
    held = Claim.of(claim(store))
    store.report(held, progress={"percent": 1}, stages=[RECEIPT])
    store.report(held)
    job = store.get(held.id)
    assert job is not None and (job.progress, job.stages) == ({"percent": 1}, [RECEIPT])


def test_a_job_that_failed_says_why(store: JobStore) -> None:
    create(store)
    held = Claim.of(claim(store))
    assert store.fail(held, {"code": "not_finite", "message": "too much guidance"}, [RECEIPT])
    job = store.get(held.id)
    assert job is not None and (job.status, job.error) == (FAILED, {"code": "not_finite", "message": "too much guidance"})
    assert job.expires_at is not None


def test_nobody_holds_a_job_that_waits(store: JobStore) -> None:
    with pytest.raises(ValueError, match="is queued and nobody has claimed it"):
        Claim.of(create(store))


@pytest.mark.parametrize("state", [QUEUED, IN_PROGRESS])
def test_a_job_is_cancelled_at_once_whether_it_waits_or_is_at_work(store: JobStore, state: str) -> None:
    job = create(store)
    if state == IN_PROGRESS:
        job = claim(store)
    cancelled = store.cancel("ada", job.id)
    assert cancelled is not None and cancelled.status == CANCELLED and cancelled.completed_at is not None
    assert store.claim("two", LEASE, ["miniature"]) is None
    assert store.cancel("ada", job.id) == cancelled


def test_who_works_at_a_cancelled_job_learns_it_at_every_turn(store: JobStore) -> None:
    create(store)
    held = Claim.of(claim(store))
    store.cancel("ada", held.id)
    assert store.heartbeat([held], LEASE) == set()
    assert not store.pin(held, "w") and not store.report(held, {"percent": 1}) and not store.finish(held, OUTPUT, [], None)
    assert not store.fail(held, LOST, []) and not store.release(held) and not store.retry(held, LOST, max_attempts=9, delay=0)
    job = store.get(held.id)
    assert job is not None and (job.status, job.output, job.error) == (CANCELLED, None, None)


def test_a_job_that_has_ended_otherwise_is_not_cancelled(store: JobStore) -> None:
    create(store)
    held = Claim.of(claim(store))
    store.finish(held, OUTPUT, [], None)
    with pytest.raises(ConflictError, match="is completed and cannot be cancelled"):
        store.cancel("ada", held.id)


def test_a_deleted_job_is_gone_and_handed_over_as_it_was(store: JobStore) -> None:
    job = create(store)
    working = claim(store)
    assert store.delete("ada", job.id) == working
    assert store.get(job.id) is None and store.delete("ada", job.id) is None
    assert not store.finish(Claim.of(working), OUTPUT, [], None)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_show_every_job_once_in_order_while_others_are_added(store: JobStore, order: Literal["asc", "desc"]) -> None:
    made = [create(store).id for _ in range(7)]
    create(store, "eve")
    seen, after, more = [], None, True
    while more:
        jobs, more = store.list("ada", after, 3, order)
        seen += [job.id for job in jobs]
        after = seen[-1]
        if len(seen) < 9:
            made.append(create(store).id)
    expected = made if order == "asc" else made[6::-1]
    assert seen == expected[: len(seen)] and len(seen) >= 7


def test_an_empty_page_has_no_next(store: JobStore) -> None:
    assert store.list("ada", None, 5, "desc") == ([], False)


@pytest.mark.parametrize("tenant", ["ada", "eve"])
def test_a_page_after_a_job_that_the_tenant_does_not_have_is_refused(store: JobStore, tenant: str) -> None:
    after = create(store).id if tenant == "eve" else "video_0"
    with pytest.raises(NotFoundError, match="begin without after") as caught:
        store.list(tenant, after, 5, "desc")
    assert caught.value.field == "after"


def test_what_changed_is_told_once_and_what_is_gone_too(store: JobStore) -> None:
    same, moved, gone = create(store), create(store), create(store)
    versions = {job.id: job.version for job in (same, moved, gone)}
    store.cancel("ada", moved.id)
    store.delete("ada", gone.id)
    cancelled = store.get(moved.id)
    assert cancelled is not None
    assert store.changed(versions) == Changes([cancelled], {gone.id})
    assert store.changed({same.id: same.version, cancelled.id: cancelled.version}) == store.changed({}) == Changes([], set())


def test_a_heartbeat_is_no_change(store: JobStore) -> None:
    create(store)
    job = claim(store)
    assert store.heartbeat([Claim.of(job)], LEASE) == {Claim.of(job)}
    assert store.changed({job.id: job.version}) == Changes([], set())


def test_only_ended_jobs_past_their_time_expire_and_are_purged(store: JobStore, database: Database) -> None:
    waiting, kept, forever, past, failed = (create(store).id for _ in range(5))
    held = {job.id: Claim.of(job) for job in (claim(store) for _ in range(5))}
    store.release(held[waiting])
    for name, retention in ((kept, 3600.0), (forever, None), (past, 0.0)):
        store.finish(held[name], OUTPUT, [], retention)
    store.fail(held[failed], LOST, [])
    assert [job.id for job in store.expired(9)] == [past]
    pass_time(database, failed, QueueLimits().kept_seconds + 1, "expires_at")
    assert [job.id for job in store.expired(9)] == [failed, past] and [job.id for job in store.expired(1)] == [failed]
    assert store.purge([waiting, kept, forever, past, failed]) == 2
    assert [store.get(name) is None for name in (waiting, kept, forever, past, failed)] == [False, False, False, True, True]


def test_a_job_that_waits_again_forgets_its_progress_and_keeps_its_receipts(store: JobStore, database: Database) -> None:
    create(store)
    job = claim(store)
    store.report(Claim.of(job), {"percent": 40}, [RECEIPT])
    expire_lease(database, job.id)
    store.reap(max_attempts=3)
    again = store.get(job.id)
    assert again is not None and (again.status, again.shown_status, again.progress, again.stages) == (QUEUED, QUEUED, {}, [RECEIPT])
    assert again.started_at == job.started_at == claim(store).started_at
