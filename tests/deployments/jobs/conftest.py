"""a database of each kind, empty for every test -> what the service asks of it"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update

from deployments.jobs.database import Database, open_database
from deployments.jobs.records import QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tables import fairness, metadata
from tests.postgres import Postgres, postgres

__all__ = ["postgres"]
KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite database, to be copied."""
    file = tmp_path_factory.mktemp("jobs") / "jobs.db"
    open_database(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def server_database(postgres: Postgres) -> Iterator[Database]:
    database = open_database(postgres.create_database("jobs"))
    yield database
    database.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "jobs.db")
        database = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        yield database
        database.close()
    else:
        database = request.getfixturevalue("server_database")
        empty(database)
        yield database


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, QueueLimits())


def empty(database: Database) -> None:
    """As it is when it is new."""
    tables = [table for table in metadata.tables.values() if table is not fairness]
    with database.write() as connection:
        if connection.dialect.name == "postgresql":  # deleted rows would stay in the indexes
            connection.execute(text(f"TRUNCATE {', '.join(table.name for table in tables)}"))
        for table in tables:
            connection.execute(delete(table))
        connection.execute(update(fairness).values(virtual_time=0.0, last_created_at=0.0))
