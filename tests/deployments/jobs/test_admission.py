"""jobs that ask to enter, some at once -> one job per key, no more than there is room and money for"""

import pytest
from sqlalchemy import select, update

from aiprod_components.errors import IdempotencyError, QueueFullError, QuotaError
from deployments.jobs.database import Database
from deployments.jobs.records import Claim, QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tables import spending
from deployments.jobs.tenants import Tenant, TenantStore
from tests.deployments.jobs.samples import AT_ONCE, LOST, at_once, claim, create, new_job


def test_the_same_body_with_the_same_key_is_the_same_job(store: JobStore) -> None:
    first = create(store, idempotency_key="k", body_hash="h")
    assert store.create(new_job(idempotency_key="k", body_hash="h")) == (first, True)


def test_another_body_with_the_same_key_is_refused(store: JobStore) -> None:
    create(store, idempotency_key="k", body_hash="h")
    with pytest.raises(IdempotencyError, match="'k' was used before, for another body") as caught:
        store.create(new_job(idempotency_key="k", body_hash="other"))
    assert caught.value.field == "idempotency-key"


def test_a_key_is_a_tenants_own(store: JobStore) -> None:
    first = create(store, idempotency_key="k", body_hash="h")
    assert create(store, "eve", idempotency_key="k", body_hash="other").id != first.id


def test_jobs_without_a_key_are_never_the_same(store: JobStore) -> None:
    assert create(store).id != create(store).id


def test_a_key_is_free_again_when_its_job_is_deleted(store: JobStore) -> None:
    first = create(store, idempotency_key="k", body_hash="h")
    store.delete("ada", first.id)
    assert create(store, idempotency_key="k", body_hash="other").id != first.id


def test_one_key_used_many_times_at_once_is_one_job(store: JobStore) -> None:
    answers = at_once(lambda _: store.create(new_job(idempotency_key="k", body_hash="h")))
    assert sorted(answer[1] for answer in answers if isinstance(answer, tuple)) == [False] + [True] * (AT_ONCE - 1)
    assert len({answer[0].id for answer in answers if isinstance(answer, tuple)}) == 1
    assert len(store.list("ada", None, 9, "asc")[0]) == 1


def test_a_replay_needs_no_room_and_costs_nothing(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_queued=1, max_cost_per_day=1.0))
    first = create(store, idempotency_key="k", body_hash="h")
    assert store.create(new_job(idempotency_key="k", body_hash="h")) == (first, True)


def test_a_full_queue_takes_no_more_however_many_ask_at_once(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_queued=5))
    answers = at_once(lambda _: store.create(new_job()))
    assert sum(isinstance(answer, tuple) for answer in answers) == 5
    assert {type(answer) for answer in answers} == {tuple, QueueFullError}
    create(store, "eve")
    claim(store)
    create(store)


def test_the_queue_of_all_is_full_for_everybody(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_queued_of_all=2))
    create(store)
    create(store, "bob")
    with pytest.raises(QueueFullError, match="2 videos are waiting"):
        store.create(new_job("eve"))


def test_a_tenants_own_limits_go_before_the_usual_ones(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_queued=1, max_cost_per_day=10.0))
    TenantStore(database).put(Tenant("ada", max_queued=2, max_cost_per_day=3.0))
    TenantStore(database).put(Tenant("eve", max_queued=0))
    create(store)
    create(store)
    with pytest.raises(QueueFullError, match="2 of your videos are waiting"):
        store.create(new_job())
    claim(store)
    with pytest.raises(QuotaError, match=r"of the last 24 hours cost 2 and this one would cost 1\.5, beyond your 3"):
        store.create(new_job(cost=1.5))
    with pytest.raises(QueueFullError, match="0 of your videos"):
        store.create(new_job("eve"))


def test_what_was_asked_for_a_day_ago_no_longer_counts(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_cost_per_day=2.0))
    create(store, cost=2.0)
    with pytest.raises(QuotaError):
        store.create(new_job(cost=1.0))
    later(database, hours=23)
    with pytest.raises(QuotaError):
        store.create(new_job(cost=1.0))
    later(database, hours=1)
    create(store, cost=1.0)


def test_neither_deleting_nor_failing_gives_back_what_a_video_cost(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_cost_per_day=2.0))
    done, failed = create(store), create(store)
    store.finish(Claim.of(claim(store)), {}, [], None)
    store.fail(Claim.of(claim(store)), LOST, [])
    for job in (done, failed):
        store.delete("ada", job.id)
    with pytest.raises(QuotaError):
        store.create(new_job())


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_what_never_ran_costs_nothing_once_and_what_ran_does(database: Database, end: str) -> None:
    store = JobStore(database, QueueLimits(max_cost_per_day=2.0))
    ran = create(store)
    claim(store)
    waited = create(store)
    for job in (ran, waited):
        getattr(store, end)("ada", job.id)
    store.cancel("ada", waited.id)
    store.delete("ada", waited.id)
    create(store)
    with pytest.raises(QuotaError):
        store.create(new_job())


def test_a_refused_job_leaves_nothing_behind(database: Database) -> None:
    store = JobStore(database, QueueLimits(max_cost_per_day=1.0))
    with pytest.raises(QuotaError):
        store.create(new_job(cost=1.5, idempotency_key="k", body_hash="h"))
    create(store, cost=1.0, idempotency_key="k", body_hash="other")
    with database.read() as connection:
        assert list(connection.scalars(select(spending.c.cost))) == [1.0]


def test_jobs_created_at_once_have_an_order(store: JobStore) -> None:
    at_once(lambda number: store.create(new_job(cost=number + 1.0)))
    times = [job.created_at for job in store.list("ada", None, AT_ONCE, "asc")[0]]
    assert len(set(times)) == AT_ONCE


def later(database: Database, *, hours: int) -> None:
    with database.write() as connection:
        connection.execute(update(spending).values(hour=spending.c.hour - hours))
