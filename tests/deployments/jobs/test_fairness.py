"""backlogs of several tenants -> the order in which they are served"""

import random
from collections import Counter
from itertools import pairwise

import pytest
from sqlalchemy import text

from deployments.jobs.database import Database
from deployments.jobs.fairness import claim_next
from deployments.jobs.records import NO_LIMIT, Claim, Job, QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tenants import Tenant, TenantStore
from tests.deployments.jobs.conftest import empty
from tests.deployments.jobs.samples import AT_ONCE, FAMILIES, LEASE, LOST, at_once, claim, create, multiply, pass_time, running

LIMITS = QueueLimits()


def serve(store: JobStore, number: int) -> list[str]:
    """The tenants of the next jobs."""
    return [claim(store).tenant for _ in range(number)]


def test_a_newcomer_is_next_behind_a_thousand_jobs_of_another(store: JobStore, database: Database) -> None:
    multiply(database, create(store), 999)
    serve(store, 3)
    create(store, "bob")
    create(store, "bob")
    assert serve(store, 4) == ["bob", "ada", "bob", "ada"]


def test_a_newcomer_is_next_but_one_before_anybody_was_served(store: JobStore, database: Database) -> None:
    multiply(database, create(store), 999)
    create(store, "bob")
    assert serve(store, 2) == ["ada", "bob"]


def test_tenants_share_by_weight(store: JobStore, database: Database) -> None:
    TenantStore(database).put(Tenant("bob", weight=3.0))
    for tenant in ("ada", "bob"):
        multiply(database, create(store, tenant), 40)
    assert Counter(serve(store, 40))["bob"] == pytest.approx(30, abs=1)


def test_tenants_share_by_cost_so_small_jobs_go_more_often(store: JobStore, database: Database) -> None:
    multiply(database, create(store, "ada", cost=10.0), 10)
    multiply(database, create(store, "bob", cost=1.0), 40)
    assert Counter(serve(store, 33))["ada"] == pytest.approx(3, abs=1)


def test_backlogged_tenants_never_drift_apart_by_more_than_a_job_each(store: JobStore, database: Database) -> None:
    """The bound of start-time fair queueing, at every moment."""
    draw, weights, largest = random.Random(5), {"ada": 1.0, "bob": 2.5, "eve": 0.5}, 9.0
    for tenant, weight in weights.items():
        TenantStore(database).put(Tenant(tenant, weight=weight))
        for _ in range(12):
            create(store, tenant, cost=draw.uniform(0.5, largest))
    got, waiting = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 12)
    while all(waiting.values()):
        job = claim(store)
        got[job.tenant] += job.cost / weights[job.tenant]
        waiting[job.tenant] -= 1
        for one, other in pairwise([*weights, "ada"]):
            assert abs(got[one] - got[other]) <= largest / weights[one] + largest / weights[other]


def test_staying_away_saves_no_turns(store: JobStore, database: Database) -> None:
    create(store, "bob")
    multiply(database, create(store), 20)
    serve(store, 11)
    multiply(database, create(store, "bob"), 5)
    assert Counter(serve(store, 6)) == {"ada": 3, "bob": 3}


def test_what_a_tenant_had_while_nobody_waited_is_not_held_against_it(store: JobStore, database: Database) -> None:
    create(store, "bob", cost=1000.0)
    serve(store, 1)
    assert store.claim("nobody", LEASE, FAMILIES) is None  # the queue is empty
    multiply(database, create(store), 999)
    create(store, "bob")
    assert "bob" in serve(store, 2)


def test_within_a_tenant_the_older_job_goes_first(store: JobStore) -> None:
    made = [create(store).id for _ in range(3)]
    assert [claim(store).id for _ in range(3)] == made


def test_a_priority_is_a_head_start_that_waiting_outweighs(store: JobStore, database: Database) -> None:
    old, older, urgent = create(store), create(store), create(store, priority=10)
    head_start = 10 * LIMITS.seconds_per_priority
    pass_time(database, old.id, head_start / 2, "created_at", "rank")
    pass_time(database, older.id, head_start * 2, "created_at", "rank")
    assert [claim(store).id for _ in range(3)] == [older.id, urgent.id, old.id]


def test_a_priority_overtakes_nobody_else(store: JobStore) -> None:
    for tenant, priority in (("ada", 0), ("ada", 0), ("bob", 100), ("bob", 100)):
        create(store, tenant, priority=priority)
    assert Counter(serve(store, 2)) == {"ada": 1, "bob": 1}


def test_a_tenant_at_its_limit_of_running_jobs_is_passed_over(store: JobStore, database: Database) -> None:
    TenantStore(database).put(Tenant("ada", max_running=1))
    create(store)
    create(store)
    first = claim(store)
    assert store.claim("one", LEASE, FAMILIES) is None
    create(store, "bob")
    assert serve(store, 1) == ["bob"]
    store.finish(Claim.of(first), {}, [], None)
    assert serve(store, 1) == ["ada"]


def test_a_tenants_limit_of_running_jobs_holds_however_many_claim_at_once(store: JobStore, database: Database) -> None:
    TenantStore(database).put(Tenant("ada", max_running=3))
    multiply(database, create(store), AT_ONCE)
    claims = at_once(lambda number: store.claim(str(number), LEASE, FAMILIES))
    assert sum(isinstance(job, Job) for job in claims) == 3 == len(running(database))


def test_only_jobs_of_the_families_that_are_asked_for_are_claimed(store: JobStore) -> None:
    first, second = create(store, family="ltx2"), create(store, family="miniature")
    assert store.claim("one", LEASE, []) is None
    assert claim(store, families=("miniature",)).id == second.id
    assert store.claim("one", LEASE, ["miniature", "aiprod"]) is None
    assert claim(store, families=("miniature", "ltx2")).id == first.id


def test_of_several_families_the_oldest_job_goes_first(store: JobStore) -> None:
    made = [create(store, family=family).id for family in ("ltx2", "miniature", "aiprod", "ltx2")]
    assert [claim(store, families=("aiprod", "ltx2", "miniature")).id for _ in made] == made


def test_a_job_that_lost_its_worker_is_not_charged_twice(store: JobStore, database: Database) -> None:
    multiply(database, create(store), 3)
    multiply(database, create(store, "bob"), 3)
    lost = claim(store)
    store.retry(Claim.of(lost), LOST, max_attempts=3, delay=0.0)
    assert serve(store, 4) == ["bob", "ada", "ada", "bob"]


def test_a_job_is_not_tried_again_before_its_time(store: JobStore, database: Database) -> None:
    create(store)
    lost = claim(store)
    store.retry(Claim.of(lost), LOST, max_attempts=3, delay=30.0)
    assert store.claim("one", LEASE, FAMILIES) is None
    pass_time(database, lost.id, 31.0, "not_before")
    assert claim(store).id == lost.id


def test_positions_are_the_order_in_which_jobs_are_claimed(store: JobStore, database: Database) -> None:
    draw = random.Random(3)
    TenantStore(database).put(Tenant("bob", weight=2.0))
    made = [create(store, draw.choice(["ada", "bob", "eve"]), cost=draw.randint(1, 8), priority=draw.randint(-5, 5)).id for _ in range(30)]
    for _ in range(6):
        made.remove(claim(store).id)
    positions = store.queue_positions(made)
    assert [positions[claim(store).id] for _ in made] == list(range(1, 25))


def test_positions_are_told_of_jobs_that_wait_alone(store: JobStore) -> None:
    create(store)
    waiting, working = create(store), claim(store)
    assert store.queue_positions([working.id, waiting.id, "video_0"]) == {waiting.id: 1}
    assert store.queue_positions([]) == {}


def test_a_claim_reads_a_hundred_rows_of_a_hundred_thousand_at_most(database: Database) -> None:
    fill(database, create_unlimited(database))
    if database.engine.dialect.name == "sqlite":
        assert steps_of_a_claim(database) < 5_000
    else:
        count_rows(database)
        assert rows_of_a_claim(database) < 100


def test_a_claim_reads_no_more_when_postgresql_last_counted_one_row(server_database: Database) -> None:
    """For its plans, which it goes on making by that number."""
    empty(server_database)
    first = create_unlimited(server_database)
    count_rows(server_database)
    fill(server_database, first)
    assert rows_of_a_claim(server_database) < 100


def create_unlimited(database: Database, tenant: str = "ada", family: str = "miniature") -> Job:
    return create(JobStore(database, QueueLimits(max_queued_of_all=NO_LIMIT, max_queued=NO_LIMIT)), tenant, family=family)


def fill(database: Database, first: Job) -> None:
    JobStore(database, LIMITS).cancel(first.tenant, first.id)
    multiply(database, first, 30_000)
    for tenant, family, number in (("ada", "ltx2", 30_000), ("ada", "miniature", 39_000), ("bob", "miniature", 1_000)):
        multiply(database, create_unlimited(database, tenant, family), number)


def count_rows(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("ANALYZE jobs"))


def steps_of_a_claim(database: Database) -> int:
    """Instructions of SQLite's machine, of which a row that is passed over takes some."""
    steps: list[None] = []
    with database.write() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: steps.append(None), 10)
        assert claim_next(connection, "one", lease_seconds=LEASE, families=FAMILIES, limits=LIMITS) is not None
        driver.set_progress_handler(None, 0)
    return 10 * len(steps)


def rows_of_a_claim(database: Database) -> int:
    read = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'jobs'")
    with database.write() as connection:
        before = connection.execute(read).scalar_one()  # of this connection's last transactions
        assert claim_next(connection, "one", lease_seconds=LEASE, families=FAMILIES, limits=LIMITS) is not None
        return connection.execute(read).scalar_one() - before
