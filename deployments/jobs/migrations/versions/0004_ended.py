"""jobs that have ended, and their receipts -> rows that stay when a video is deleted"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

DAY = 86_400
AT_ONCE = 500  # jobs
COPIED = ("id", "tenant", "family", "pipeline", "status", "created_at", "started_at", "completed_at", "attempt", "cost")
LINE: dict[str, Any] = {"stage": "", "queued_seconds": 0.0, "run_seconds": 0.0, "cache_hit": False}
KNOWN = sa.table("jobs", *map(sa.column, COPIED), sa.column("stages", sa.JSON), sa.column("error", sa.JSON(none_as_null=True)))


def upgrade() -> None:
    ended_jobs = op.create_table(
        "ended_jobs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("wait_seconds", sa.Double),
        sa.Column("total_seconds", sa.Double, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ended_jobs"),
    )
    ended_steps = op.create_table(
        "ended_steps",
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("place", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("queued_seconds", sa.Double, nullable=False),
        sa.Column("run_seconds", sa.Double, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("job", "place", name="pk_ended_steps"),
    )
    for table in ("ended_jobs", "ended_steps"):
        op.create_index(f"ix_{table}_day", table, ["day"])
        op.create_index(f"ix_{table}_tenant_day", table, ["tenant", "day"])
    _fill(op.get_bind(), ended_jobs, ended_steps)


def _fill(connection: sa.Connection, ended_jobs: sa.Table, ended_steps: sa.Table) -> None:
    """From the jobs that have ended and are still there. How many GPUs their steps had nobody wrote down."""
    ended = sa.select(KNOWN).where(KNOWN.c.completed_at.is_not(None)).order_by(KNOWN.c.completed_at)
    for some in connection.execute(ended).mappings().partitions(AT_ONCE):
        connection.execute(sa.insert(ended_jobs), [_job_row(job) for job in some])
        if steps := [_step_row(job, place, line) for job in some for place, line in enumerate(job["stages"])]:
            connection.execute(sa.insert(ended_steps), steps)


def _job_row(job: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        **{name: job[name] for name in ("id", "tenant", "family", "pipeline", "status")},
        "day": int(job["completed_at"] // DAY),
        "ended_at": job["completed_at"],
        "error": (job["error"] or {}).get("code"),
        "wait_seconds": None if job["started_at"] is None else job["started_at"] - job["created_at"],
        "total_seconds": job["completed_at"] - job["created_at"],
        "cost": job["cost"] if job["attempt"] else 0.0,
    }


def _step_row(job: Mapping[Any, Any], place: int, line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "job": job["id"],
        "place": place,
        "day": int(job["completed_at"] // DAY),
        "tenant": job["tenant"],
        "family": job["family"],
        "gpus": 0,
        **{name: line.get(name, absent) for name, absent in LINE.items()},
    }
