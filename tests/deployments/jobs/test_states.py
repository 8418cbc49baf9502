"""whatever happens to jobs, in any order -> they are as a small model says"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select

from aiprod_components.errors import ConflictError
from deployments.jobs.database import Database
from deployments.jobs.records import CANCELLED, COMPLETED, FAILED, FINAL, IN_PROGRESS, LIVE, QUEUED, Claim, QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tables import outbox
from tests.deployments.jobs.conftest import empty
from tests.deployments.jobs.samples import FAMILIES, LEASE, LOST, create, expire_lease

MAX_ATTEMPTS = 2
TENANTS = ("ada", "bob")


@dataclass
class Expected:
    """A job as it ought to be."""

    tenant: str
    status: str = QUEUED
    claim: Claim | None = None
    attempt: int = 0
    lost: int = 0
    expired: bool = field(default=False)

    def wait(self) -> None:
        self.status, self.claim, self.expired = QUEUED, None, False

    def lose(self) -> None:
        self.lost += 1
        self.wait()
        if self.lost >= MAX_ATTEMPTS:
            self.status = FAILED


class JobStates(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    claims = Bundle("claims")
    database: Database

    @initialize()
    def begin(self) -> None:
        empty(self.database)
        self.store, self.events = JobStore(self.database, QueueLimits()), 0
        self.model: dict[str, Expected] = {}

    @rule(target=jobs, tenant=st.sampled_from(TENANTS), priority=st.integers(-3, 3))
    def create(self, tenant: str, priority: int) -> str:
        job = create(self.store, tenant, priority=priority, webhook_url="https://ada.example/hook")
        self.model[job.id] = Expected(tenant)
        return job.id

    @rule(target=claims, owner=st.sampled_from(["one", "two"]))
    def claim(self, owner: str) -> Claim | None:
        positions = self.store.queue_positions(list(self.model))
        job = self.store.claim(owner, LEASE, FAMILIES)
        if job is None:
            assert not self.having(QUEUED)
            return None
        assert positions[job.id] == 1
        expected = self.model[job.id]
        assert expected.status == QUEUED
        expected.status, expected.attempt, expected.claim = IN_PROGRESS, expected.attempt + 1, Claim.of(job)
        return expected.claim

    @rule(claim=claims)
    def report(self, claim: Claim | None) -> None:
        if claim:
            assert self.store.report(claim, {"percent": 1}) == self.holds(claim)

    @rule(claim=claims)
    def heartbeat(self, claim: Claim | None) -> None:
        if claim:
            assert (claim in self.store.heartbeat([claim], LEASE)) == self.holds(claim)
            if self.holds(claim):
                self.model[claim.id].expired = False

    @rule(claim=claims, completed=st.booleans())
    def end(self, claim: Claim | None, completed: bool) -> None:
        if claim:
            held = self.holds(claim)
            ended = self.store.finish(claim, {}, [], None) if completed else self.store.fail(claim, LOST, [])
            assert ended == held
            if held:
                self.finish(claim.id, COMPLETED if completed else FAILED)

    @rule(claim=claims)
    def release(self, claim: Claim | None) -> None:
        if claim:
            held = self.holds(claim)
            assert self.store.release(claim) == held
            if held:
                self.model[claim.id].wait()

    @rule(claim=claims)
    def retry(self, claim: Claim | None) -> None:
        if claim:
            held = self.holds(claim)
            assert self.store.retry(claim, LOST, MAX_ATTEMPTS, 0.0) == held
            if held:
                self.lose(claim.id)

    @rule(job=jobs)
    def fall_silent(self, job: str) -> None:
        if job in self.having(IN_PROGRESS):
            expire_lease(self.database, job)
            self.model[job].expired = True

    @rule()
    def reap(self) -> None:
        reaped = self.store.reap(MAX_ATTEMPTS)
        silent = {name for name, expected in self.model.items() if expected.expired}
        assert {job.id for job in reaped} == silent
        for name in silent:
            self.lose(name)

    @rule(job=jobs, tenant=st.sampled_from(TENANTS))
    def cancel(self, job: str, tenant: str) -> None:
        expected = self.model.get(job)
        if expected is None or expected.tenant != tenant:
            assert self.store.cancel(tenant, job) is None
        elif expected.status in (COMPLETED, FAILED):
            with pytest.raises(ConflictError, match=expected.status):
                self.store.cancel(tenant, job)
        else:
            cancelled = self.store.cancel(tenant, job)
            assert cancelled is not None and cancelled.status == CANCELLED
            if expected.status != CANCELLED:
                self.finish(job, CANCELLED)

    @rule(job=consumes(jobs))
    def delete(self, job: str) -> None:
        expected = self.model.pop(job)
        deleted = self.store.delete(expected.tenant, job)
        assert deleted is not None and deleted.status == expected.status
        self.events += expected.status in LIVE

    @invariant()
    def jobs_are_as_expected(self) -> None:
        stored = {job.id: job for tenant in TENANTS for job in self.store.list(tenant, None, 99, "asc")[0]}
        expected = {name: (expected.status, expected.attempt) for name, expected in self.model.items()}
        assert {name: (job.status, job.attempt) for name, job in stored.items()} == expected
        assert all((job.completed_at is not None) == (job.status in FINAL) for job in stored.values())
        positions = self.store.queue_positions(list(stored))
        assert set(positions) == self.having(QUEUED) and sorted(positions.values()) == list(range(1, len(positions) + 1))

    @invariant()
    def every_end_has_one_event(self) -> None:
        with self.database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(outbox)) == self.events

    def holds(self, claim: Claim) -> bool:
        return claim.id in self.model and self.model[claim.id].claim == claim

    def having(self, status: str) -> set[str]:
        return {name for name, expected in self.model.items() if expected.status == status}

    def finish(self, id: str, status: str) -> None:
        self.model[id].wait()
        self.model[id].status = status
        self.events += 1

    def lose(self, id: str) -> None:
        self.model[id].lose()
        self.events += self.model[id].status == FAILED


def test_jobs_go_only_from_state_to_state_as_they_may(database: Database) -> None:
    class States(JobStates):
        pass

    States.database = database
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        States, settings=settings(max_examples=6, stateful_step_count=25, deadline=None, database=None, suppress_health_check=checks)
    )
