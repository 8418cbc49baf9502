"""jobs -> each with the work that its plan takes, by step and stage; and ended jobs found by when they ended"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("work", sa.Text))
    op.create_index("ix_jobs_completed_at", "jobs", ["completed_at"])
