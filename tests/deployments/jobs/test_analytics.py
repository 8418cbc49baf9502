"""jobs that ended in every way, known to the second -> the figures of some days, to the last digit"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select, text, update

from deployments.jobs.analytics import Analytics, Day, EndedJobs, Failure, FamilyTimes, Spread, StageTimes, Usage, note_ended
from deployments.jobs.database import Database, open_database
from deployments.jobs.records import Claim, Job, QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tables import ended_jobs, ended_steps
from tests.deployments.jobs.conftest import KINDS
from tests.deployments.jobs.samples import LOST, claim, create, expire_lease

NONE = Spread(0, None, None)


@pytest.fixture
def ended(database: Database) -> EndedJobs:
    return EndedJobs(database, gpu_hour_price=1800.0)


def line(stage: str, run: float, *, gpus: int = 0, attempt: int = 1, hit: bool = False) -> dict[str, Any]:
    return {
        "step": stage, "stage": stage, "replica": "a", "queued_seconds": 0.5, "run_seconds": run, "gpus": gpus,
        "cache_hit": hit, "attempt": attempt,
    }  # fmt: skip


def make(store: JobStore, *lines: dict[str, Any], tenant: str = "ada", **changes: Any) -> Job:
    """A job that is completed at once."""
    job = create(store, tenant, **changes)
    assert store.finish(Claim.of(claim(store)), {}, list(lines), None)
    return job


def rows(database: Database, table: Table) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def age(database: Database, id: str, *, days: int) -> None:
    with database.write() as connection:
        connection.execute(update(ended_jobs).where(ended_jobs.c.id == id).values(day=ended_jobs.c.day - days))
        connection.execute(update(ended_steps).where(ended_steps.c.job == id).values(day=ended_steps.c.day - days))


def job_of(job: Job, number: int) -> Job:
    """One that waited so many quarters of a second, and took so many seconds, and its denoiser half of them."""
    now = job.created_at // 1
    times = {"created_at": now - number, "started_at": now - number * 3 / 4, "completed_at": now}
    stages = [line("denoiser", number / 2), *([line("upsampler", 7.0)] if number == 3 else ())]
    return replace(job, id=f"video_{number}", status="completed", stages=stages, **times)


def counted(found: Analytics) -> tuple[int, int, int]:
    """Completed, failed, cancelled."""
    return sum(day.completed for day in found.days), sum(day.failed for day in found.days), sum(day.cancelled for day in found.days)


def test_percentiles_are_nearest_ranks_by_stage(database: Database, store: JobStore, ended: EndedJobs) -> None:
    job = create(store)
    with database.write() as connection:
        note_ended(connection, [job_of(job, number) for number in range(1, 41)])
    (family,) = ended.analyse(1).families
    assert family == FamilyTimes(
        "miniature",
        waited=Spread(40, 5.0, 9.5),
        completed=Spread(40, 20.0, 38.0),
        stages=(StageTimes("denoiser", Spread(40, 10.0, 19.0), 0), StageTimes("upsampler", Spread(1, 7.0, 7.0), 0)),
    )


def test_of_two_the_first_is_the_median_and_of_equals_any(store: JobStore, ended: EndedJobs) -> None:
    for seconds in (9.0, 1.0):
        make(store, line("denoiser", seconds), line("refiner", 4.0))
    (family,) = ended.analyse(1).families
    assert [stage.ran for stage in family.stages] == [Spread(2, 1.0, 9.0), Spread(2, 4.0, 4.0)]


def test_gpu_seconds_and_cost_are_summed_by_tenant_and_family(store: JobStore, ended: EndedJobs) -> None:
    make(store, line("denoiser", 30.0, gpus=4), line("vae_decoder", 2.5), cost=3.0)
    make(store, line("denoiser", 10.0, gpus=1), cost=1.5)
    create(store, "bob", family="ltx2", cost=8.0)
    store.finish(Claim.of(claim(store, families=("ltx2",))), {}, [line("denoiser", 100.0, gpus=2)], None)
    make(store, tenant="bob")
    assert ended.analyse(1).usage == (
        Usage("ada", "miniature", 2, replica_seconds=42.5, gpu_seconds=130.0, cost=4.5, money=65.0),
        Usage("bob", "ltx2", 1, replica_seconds=100.0, gpu_seconds=200.0, cost=8.0, money=100.0),
        Usage("bob", "miniature", 1, replica_seconds=0.0, gpu_seconds=0.0, cost=1.0, money=0.0),
    )


def test_without_a_price_nothing_is_said_of_money(database: Database, store: JobStore) -> None:
    make(store, line("denoiser", 1.0, gpus=1))
    found = EndedJobs(database).analyse(1)
    assert found.gpu_hour_price is None and [usage.money for usage in found.usage] == [None]


def test_a_tenant_sees_its_own_alone(store: JobStore, ended: EndedJobs) -> None:
    make(store, line("denoiser", 1.0))
    make(store, line("denoiser", 64.0), tenant="bob")
    create(store, "bob")
    store.fail(Claim.of(claim(store)), LOST, [])
    own = ended.analyse(1, "ada")
    assert (own.tenant, counted(own), own.failures) == ("ada", (1, 0, 0), ())
    assert [usage.tenant for usage in own.usage] == ["ada"]
    assert own.families[0].stages[0].ran == Spread(1, 1.0, 1.0)
    assert ended.analyse(1, "eve").usage == ()
    assert counted(ended.analyse(1)) == (2, 1, 0)


def test_what_was_found_in_the_cache_took_nobodys_time(store: JobStore, ended: EndedJobs) -> None:
    make(store, line("text_encoder", 0.0, hit=True), line("denoiser", 2.0))
    make(store, line("text_encoder", 0.0, hit=True), line("denoiser", 0.0, hit=True))
    (family,) = ended.analyse(1).families
    assert family.stages == (StageTimes("denoiser", Spread(1, 2.0, 2.0), 1), StageTimes("text_encoder", NONE, 2))


def test_every_way_to_end_is_counted_once(database: Database, store: JobStore, ended: EndedJobs) -> None:
    make(store)
    create(store)
    assert store.fail(Claim.of(claim(store)), {"code": "not_finite", "message": ""}, [])
    lost = create(store)
    claim(store)
    expire_lease(database, lost.id)
    assert [job.status for job in store.reap(max_attempts=1)] == ["failed"]
    create(store)
    assert store.retry(Claim.of(claim(store)), LOST, max_attempts=1, delay=0.0)
    at_work = create(store)
    claim(store)
    assert store.cancel("ada", at_work.id) and store.cancel("ada", at_work.id)
    deleted = create(store)
    claim(store)
    assert store.delete("ada", deleted.id) and store.delete("ada", at_work.id)
    found = ended.analyse(1)
    assert counted(found) == (1, 3, 2) and rows(database, ended_jobs) == 6
    assert found.failures == (Failure("miniature", "worker_lost", 2), Failure("miniature", "not_finite", 1))


def test_what_still_waits_or_is_tried_again_is_not_counted(database: Database, store: JobStore, ended: EndedJobs) -> None:
    create(store)
    assert store.retry(Claim.of(claim(store)), LOST, max_attempts=3, delay=0.0)
    expire_lease(database, claim(store).id)
    store.reap(max_attempts=3)
    found = ended.analyse(1)
    assert (counted(found), found.families, found.usage, found.failures) == ((0, 0, 0), (), (), ())


def test_a_write_that_comes_too_late_counts_nothing(database: Database, store: JobStore, ended: EndedJobs) -> None:
    job = create(store)
    held = Claim.of(claim(store))
    store.cancel("ada", job.id)
    assert not store.finish(held, {}, [line("denoiser", 9.0)], None) and not store.fail(held, LOST, [line("denoiser", 9.0)])
    assert counted(ended.analyse(1)) == (0, 0, 1) and rows(database, ended_steps) == 0


def test_what_nobody_began_waited_for_nobody_and_cost_nothing(store: JobStore, ended: EndedJobs) -> None:
    store.cancel("ada", create(store, cost=5.0).id)
    store.delete("ada", create(store, cost=5.0).id)
    found = ended.analyse(1)
    assert counted(found) == (0, 0, 2) and found.families == ()
    assert found.usage == (Usage("ada", "miniature", 2, 0.0, 0.0, 0.0, 0.0),)


def test_what_two_attempts_took_is_added(database: Database, store: JobStore, ended: EndedJobs) -> None:
    job = create(store)
    first = line("denoiser", 3.0, gpus=1)
    store.report(Claim.of(claim(store)), stages=[first])
    expire_lease(database, job.id)
    store.reap(max_attempts=5)
    assert store.finish(Claim.of(claim(store, "two")), {}, [first, line("denoiser", 5.0, gpus=2, attempt=2)], None)
    (usage,) = ended.analyse(1).usage
    assert (usage.jobs, usage.replica_seconds, usage.gpu_seconds, usage.cost) == (1, 8.0, 13.0, 1.0)


def test_a_video_that_is_deleted_or_out_of_time_counts_as_before(store: JobStore, ended: EndedJobs) -> None:
    kept, old = make(store, line("denoiser", 3.0)), create(store)
    store.finish(Claim.of(claim(store)), {}, [line("denoiser", 5.0)], -1.0)
    before = ended.analyse(1)
    assert store.delete("ada", kept.id) and store.purge([old.id]) == 1
    assert ended.analyse(1) == before and counted(before) == (2, 0, 0)


def test_days_are_whole_and_those_without_a_job_are_told_too(database: Database, store: JobStore, ended: EndedJobs) -> None:
    for days in (0, 2, 3):
        age(database, make(store, line("denoiser", 2.0**days)).id, days=days)
    found = ended.analyse(3)
    today = found.until
    assert found.since == today - timedelta(days=2)
    assert found.days == tuple(Day(today - timedelta(days=ago), 1 if ago in (0, 2) else 0, 0, 0) for ago in (2, 1, 0))
    assert found.families[0].stages[0].ran == Spread(2, 1.0, 4.0) and found.usage[0].jobs == 2


def test_what_is_older_than_its_time_is_forgotten(database: Database, store: JobStore, ended: EndedJobs) -> None:
    for days in (399, 400):
        age(database, make(store, line("denoiser", 1.0)).id, days=days)
    assert ended.purge(400) == 1 and ended.purge(400) == 0
    assert rows(database, ended_jobs) == rows(database, ended_steps) == 1 and counted(ended.analyse(400)) == (1, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_that_ended_before_are_counted_when_the_database_is_brought_up_to_date(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    postgres = request.getfixturevalue("postgres") if kind == "postgresql" else None
    url = f"sqlite:///{tmp_path / 'old.db'}" if postgres is None else postgres.create_schema(f"old_{tmp_path.name[-8:]}")
    database = open_database(url)
    store = JobStore(database, QueueLimits())
    make(store, {name: value for name, value in line("denoiser", 4.0).items() if name != "gpus"}, cost=2.0)
    create(store)
    store.fail(Claim.of(claim(store)), LOST, [])
    store.cancel("bob", create(store, "bob").id)
    live = create(store)
    before = EndedJobs(database).analyse(1)
    with database.write() as connection:
        connection.execute(text("DROP TABLE ended_jobs"))
        connection.execute(text("DROP TABLE ended_steps"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    database.close()
    database = open_database(url)
    assert EndedJobs(database).analyse(1) == before and counted(before) == (1, 1, 1)
    assert JobStore(database, QueueLimits()).get(live.id) == live
    database.close()
