"""jobs that end -> one event each, with the change or not at all -> tried until it arrives or is given up"""

from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event, select, update

from deployments.jobs.database import Database
from deployments.jobs.outbox import Delivery, Outbox, wait_after
from deployments.jobs.records import Claim
from deployments.jobs.store import JobStore
from deployments.jobs.tables import outbox
from tests.deployments.jobs.samples import LEASE, LOST, claim, create, expire_lease

HOOK = "https://ada.example/hook"
REFUSED = "503 Service Unavailable"


@pytest.fixture
def deliveries(database: Database) -> Outbox:
    return Outbox(database)


def events(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        return list(connection.scalars(select(outbox.c.payload)))


def due_now(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(outbox).where(outbox.c.due_at.is_not(None)).values(due_at=0.0))


def ended(store: JobStore) -> str:
    job = create(store, webhook_url=HOOK)
    store.cancel("ada", job.id)
    return job.id


def complete(store: JobStore, database: Database) -> None:
    store.finish(Claim.of(claim(store)), {}, [], None)


def fail(store: JobStore, database: Database) -> None:
    store.fail(Claim.of(claim(store)), LOST, [])


def lose(store: JobStore, database: Database) -> None:
    store.retry(Claim.of(claim(store)), LOST, max_attempts=1, delay=0.0)


def fall_silent(store: JobStore, database: Database) -> None:
    expire_lease(database, claim(store).id)
    store.reap(max_attempts=1)


def cancel(store: JobStore, database: Database) -> None:
    store.cancel("ada", store.list("ada", None, 1, "asc")[0][0].id)


def cancel_at_work(store: JobStore, database: Database) -> None:
    store.cancel("ada", claim(store).id)


def delete(store: JobStore, database: Database) -> None:
    store.delete("ada", store.list("ada", None, 1, "asc")[0][0].id)


ENDS = {
    complete: "completed",
    fail: "failed",
    lose: "failed",
    fall_silent: "failed",
    cancel: "cancelled",
    cancel_at_work: "cancelled",
    delete: "cancelled",
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_however_a_job_ends_its_event_says_so_once(store: JobStore, database: Database, deliveries: Outbox, end: Any) -> None:
    job = create(store, webhook_url=HOOK)
    end(store, database)
    (delivery,) = deliveries.claim_deliveries(9, LEASE)
    assert (delivery.tenant, delivery.url, delivery.tries) == ("ada", HOOK, 1)
    payload = delivery.payload
    assert (payload["type"], payload["object"], payload["id"]) == (f"video.{ENDS[end]}", "event", delivery.id)
    assert delivery.id.startswith("evt_") and isinstance(payload["created_at"], int)
    error = payload["data"].pop("error")
    assert payload["data"] == {"id": job.id, "status": ENDS[end]}
    assert (error["code"] if error else None) == ("worker_lost" if ENDS[end] == "failed" else None)


def test_a_job_that_goes_on_or_has_no_hook_has_no_event(store: JobStore, database: Database) -> None:
    create(store)
    store.finish(Claim.of(claim(store)), {}, [], None)
    store.delete("ada", ended(store))
    with database.write() as connection:
        connection.execute(outbox.delete())
    create(store, webhook_url=HOOK)
    store.retry(Claim.of(claim(store)), LOST, max_attempts=3, delay=0.0)
    store.release(Claim.of(claim(store)))
    expire_lease(database, claim(store).id)
    store.reap(max_attempts=3)
    assert events(database) == []


def test_deleting_a_job_that_has_ended_says_nothing_more(store: JobStore, database: Database) -> None:
    store.delete("ada", ended(store))
    assert len(events(database)) == 1


def test_a_fenced_worker_and_a_repeated_cancellation_say_nothing(store: JobStore, database: Database) -> None:
    create(store, webhook_url=HOOK)
    held = Claim.of(claim(store))
    store.cancel("ada", held.id)
    store.cancel("ada", held.id)
    store.finish(held, {}, [], None)
    assert [payload["type"] for payload in events(database)] == ["video.cancelled"]


def test_an_event_that_cannot_be_written_undoes_the_change(store: JobStore, database: Database) -> None:
    create(store, webhook_url=HOOK)
    held = Claim.of(claim(store))

    def refuse(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "INTO outbox" in statement:
            raise OSError("the disk is full")

    event.listen(database.engine, "before_cursor_execute", refuse)
    try:
        with pytest.raises(OSError, match="the disk is full"):
            store.finish(held, {}, [], None)
    finally:
        event.remove(database.engine, "before_cursor_execute", refuse)
    assert store.heartbeat([held], LEASE) == {held}
    assert events(database) == []
    assert store.finish(held, {}, [], None) and len(events(database)) == 1


def test_an_event_that_arrived_is_forgotten(store: JobStore, database: Database, deliveries: Outbox) -> None:
    ended(store)
    (delivery,) = deliveries.claim_deliveries(9, LEASE)
    deliveries.delivered(delivery.id)
    assert events(database) == []


def test_a_claimed_event_is_nobody_elses_until_its_lease_ends(store: JobStore, database: Database, deliveries: Outbox) -> None:
    ids = [ended(store) for _ in range(3)]
    first, second = deliveries.claim_deliveries(2, LEASE), deliveries.claim_deliveries(2, LEASE)
    assert [delivery.payload["data"]["id"] for delivery in first + second] == ids
    assert deliveries.claim_deliveries(2, LEASE) == []
    due_now(database)
    assert [delivery.tries for delivery in deliveries.claim_deliveries(9, LEASE)] == [2, 2, 2]


def test_an_event_that_never_arrives_is_given_up_and_kept(store: JobStore, database: Database, deliveries: Outbox) -> None:
    ended(store)
    seen: list[Delivery] = []
    while claimed := deliveries.claim_deliveries(9, LEASE):
        seen += claimed
        deliveries.undelivered(claimed[0].id, f"{REFUSED}, try {len(seen)}")
        assert deliveries.claim_deliveries(9, LEASE) == []
        due_now(database)
    assert len(seen) == 8 and seen[-1].error == f"{REFUSED}, try 7"
    (lost,) = deliveries.given_up()
    assert (lost.id, lost.tries, lost.error) == (seen[0].id, 8, f"{REFUSED}, try 8")
    assert deliveries.purge(kept_seconds=3600) == 0 and deliveries.purge(kept_seconds=-1) == 1 and deliveries.given_up() == []


def test_the_failure_of_an_event_that_is_gone_changes_nothing(store: JobStore, deliveries: Outbox) -> None:
    ended(store)
    (delivery,) = deliveries.claim_deliveries(9, LEASE)
    deliveries.delivered(delivery.id)
    deliveries.undelivered(delivery.id, REFUSED)
    assert deliveries.given_up() == []


def test_waits_grow_from_seconds_to_an_hour_and_are_not_all_alike() -> None:
    waits = [[wait_after(tries) for _ in range(50)] for tries in range(1, 9)]
    assert all(3600 * 1.2 >= max(wait) > min(wait) >= 5 * 0.8 for wait in waits)
    assert all(max(one) < min(other) for one, other in pairwise(waits[:6]))
    assert min(waits[-1]) >= 3600 * 0.8
