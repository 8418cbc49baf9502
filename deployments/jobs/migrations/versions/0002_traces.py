"""jobs and webhooks -> each with the trace that it belongs to; and claimed jobs found by an index that no planner passes over"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("jobs", "outbox"):
        op.add_column(table, sa.Column("traceparent", sa.Text))
    where = sa.text("status = 'in_progress'")
    op.drop_index("ix_jobs_claimed", "jobs")
    op.create_index("ix_jobs_claimed", "jobs", ["tenant", "status"], sqlite_where=where, postgresql_where=where)
