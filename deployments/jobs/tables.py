"""THE TABLES on one page: what survives every process of the service

A change here needs a revision in `migrations/versions`; a test holds the two equal.
"""

import re
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    literal_column,
)

from deployments.jobs.records import FINAL, LIVE

NAMES = {"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s"}
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
metadata = MetaData(naming_convention=NAMES)


class Real(TypeDecorator[float]):
    """A double that arrives as one: SQLite's RETURNING hands 1.0 back as 1."""

    impl = Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Any) -> float | None:
        return None if value is None else float(value)


class Words(TypeDecorator[str]):
    """A text from anywhere, an id in a URL among them: what no database holds is replaced, and so equals nothing that is there."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


# Bytewise order on both databases, so that a prefix is a range.
_PATH = Text().with_variant(Text(collation="C"), "postgresql")

# Heartbeats change rows all the time: room beside each keeps them out of the indexes, and what is dead goes soon.
_BUSY = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.02"}

jobs = Table(
    "jobs",
    metadata,
    Column("id", Words, primary_key=True),
    Column("tenant", Words, nullable=False),
    Column("status", Words, nullable=False),
    Column("family", Words, nullable=False),
    Column("pipeline", Words, nullable=False),
    Column("created_at", Real, nullable=False),
    Column("started_at", Real),
    Column("completed_at", Real),
    Column("expires_at", Real),
    Column("record", JSON, nullable=False),
    Column("shown", JSON, nullable=False),
    Column("cost", Real, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("rank", Real, nullable=False),  # created_at less the head start of its priority: the order within a tenant
    Column("not_before", Real, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost", Integer, nullable=False),  # attempts that ended with their worker
    Column("owner", Words),
    Column("lease_until", Real),
    Column("begun", Boolean, nullable=False),
    Column("fingerprint", Words),
    Column("progress", JSON, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("output", JSON(none_as_null=True)),
    Column("remixed_from", Words),
    Column("webhook_url", Words),
    Column("idempotency_key", Words),
    Column("body_hash", Words),
    Column("version", Integer, nullable=False),
    Column("traceparent", Words),  # of the request that asked for it
    Column("work", Words),  # what its plan takes, by step and stage; opaque here
    CheckConstraint(f"status IN {(*LIVE, *FINAL)}", name="status"),
    CheckConstraint("cost > 0", name="cost"),
    postgresql_with=_BUSY,
)
# Written out, not bound: only so does a planner see that the index beside it holds all of them, however many have ended.
is_queued, is_claimed = (jobs.c.status == literal_column(f"'{status}'") for status in LIVE)
_backlogs = (jobs.c.tenant, jobs.c.family, jobs.c.rank, jobs.c.id)
Index("ix_jobs_queued", *_backlogs, sqlite_where=is_queued, postgresql_where=is_queued)
# With the status, which says nothing new, SQLite's planner is sure of this index: it took a longer one as soon as rows were wider.
Index("ix_jobs_claimed", jobs.c.tenant, jobs.c.status, sqlite_where=is_claimed, postgresql_where=is_claimed)
Index(None, jobs.c.tenant, jobs.c.created_at, jobs.c.id)  # pages
Index(None, jobs.c.tenant, jobs.c.idempotency_key, unique=True)
Index(None, jobs.c.completed_at)
Index(None, jobs.c.expires_at)

# One row, which also is the lock that whoever enters or leaves the queue takes first.
fairness = Table(
    "fairness",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("virtual_time", Real, nullable=False),
    Column("last_created_at", Real, nullable=False),
)

# A tenant without a row, or without a value in it, has the defaults of `QueueLimits`.
tenants = Table(
    "tenants",
    metadata,
    Column("tenant", Words, primary_key=True),
    Column("weight", Real),
    Column("max_queued", Integer),
    Column("max_running", Integer),
    Column("max_cost_per_day", Real),
    Column("finish_tag", Real, nullable=False),
)

# What a tenant asked for, by the hour; apart from the jobs, because deleting a video does not give back what it cost.
spending = Table(
    "spending",
    metadata,
    Column("tenant", Words, primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # since 1970
    Column("cost", Real, nullable=False),
)

# What is counted of a job when it ends; apart from the jobs, because a video that is deleted or out of time was made all the same.
ended_jobs = Table(
    "ended_jobs",
    metadata,
    Column("id", Words, primary_key=True),
    Column("day", Integer, nullable=False),  # since 1970, UTC
    Column("ended_at", Real, nullable=False),
    Column("tenant", Words, nullable=False),
    Column("family", Words, nullable=False),
    Column("pipeline", Words, nullable=False),
    Column("status", Words, nullable=False),
    Column("error", Words),  # its code
    Column("wait_seconds", Real),  # until it was claimed for the first time
    Column("total_seconds", Real, nullable=False),
    Column("cost", Real, nullable=False),
)
Index(None, ended_jobs.c.day)
Index(None, ended_jobs.c.tenant, ended_jobs.c.day)

# Their receipts, with what a question asks by: it need not read the jobs besides.
ended_steps = Table(
    "ended_steps",
    metadata,
    Column("job", Words, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("day", Integer, nullable=False),
    Column("tenant", Words, nullable=False),
    Column("family", Words, nullable=False),
    Column("stage", Words, nullable=False),
    Column("queued_seconds", Real, nullable=False),
    Column("run_seconds", Real, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("cache_hit", Boolean, nullable=False),
)
Index(None, ended_steps.c.day)
Index(None, ended_steps.c.tenant, ended_steps.c.day)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Words, primary_key=True),
    Column("tenant", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("hash", Words, nullable=False),
    Column("created_at", Real, nullable=False),
    Column("expires_at", Real),
    Column("revoked_at", Real),
)
Index(None, api_keys.c.hash, unique=True)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Words, primary_key=True),  # the event's
    Column("tenant", Words, nullable=False),
    Column("url", Words, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", Real, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Real),  # null: given up
    Column("error", Words),
    Column("traceparent", Words),  # of the job
)
Index(None, outbox.c.due_at)

kept_steps = Table(
    "kept_steps",
    metadata,
    Column("scope", Words, primary_key=True),
    Column("identity", Words, primary_key=True),
    Column("location", _PATH, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("meta", JSON, nullable=False),
    Column("used_at", Real, nullable=False),
)
Index(None, kept_steps.c.used_at)
Index(None, kept_steps.c.location)
