"""URLs, old, new and foreign databases -> today's tables, or a sentence that says what is wrong"""

import os
import stat
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Inspector, inspect, select, text

from aiprod_components.errors import ConfigError, UnavailableError
from deployments.jobs.clock import Clock
from deployments.jobs.database import Database, open_database
from deployments.jobs.records import QueueLimits
from deployments.jobs.store import JobStore
from deployments.jobs.tables import fairness, metadata
from tests.deployments.jobs.conftest import KINDS
from tests.deployments.jobs.samples import create
from tests.deployments.jobs.workers import open_only, working

SECRET = "hunter2"


@pytest.fixture(params=KINDS)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that nothing has been done to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'new.db'}"
    return request.getfixturevalue("postgres").create_schema(f"new_{os.urandom(4).hex()}")


def described(engine: Engine) -> dict[str, Any]:
    """All that two databases must have in common, in words."""
    inspector = inspect(engine)
    return {table: described_table(inspector, table) for table in sorted(metadata.tables)}


def described_table(inspector: Inspector, table: str) -> dict[str, Any]:
    return {
        "columns": {
            column["name"]: (str(column["type"]), column["nullable"], column["default"]) for column in inspector.get_columns(table)
        },
        "key": inspector.get_pk_constraint(table),
        "checks": sorted((str(check["name"]), check["sqltext"]) for check in inspector.get_check_constraints(table)),
        "indexes": {str(index["name"]): described_index(index) for index in inspector.get_indexes(table)},
    }


def described_index(index: Mapping[str, Any]) -> tuple[Any, ...]:
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return index["column_names"], bool(index["unique"]), options


def test_the_migrations_make_the_tables_as_they_are_written_down(new_url: str) -> None:
    database = open_database(new_url)
    migrated = described(database.engine)
    with database.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        metadata.drop_all(connection)
        metadata.create_all(connection)
    assert migrated == described(database.engine)
    database.close()


def test_a_database_is_opened_again_as_it_was(new_url: str) -> None:
    first = open_database(new_url)
    job = create(JobStore(first, QueueLimits()))
    first.close()
    second = open_database(new_url)
    assert JobStore(second, QueueLimits()).get(job.id) == job
    second.close()


def test_processes_that_start_at_once_make_one_database(new_url: str) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(working(open_only, new_url)) for _ in range(4)]
        assert [worker.hear() for worker in workers] == ["ready"] * 4
        for worker in workers:
            worker.pipe.send("go")
        assert [worker.hear() for worker in workers] == ["opened"] * 4
    database = open_database(new_url)
    with database.read() as connection:
        assert connection.execute(select(fairness)).all() == [(1, 0.0, 0.0)]
    database.close()


def test_threads_that_open_a_new_database_at_once_make_one(new_url: str) -> None:
    opened: list[Database] = []
    threads = [threading.Thread(target=lambda: opened.append(open_database(new_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for database in opened:
        database.close()


def test_a_database_of_a_newer_version_is_left_alone(new_url: str) -> None:
    database = open_database(new_url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"made by a newer version \(its revision is 9999, the newest known here is"):
        open_database(new_url)
    with database.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    database.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(new_url: str) -> None:
    database = open_database(new_url)
    with database.write() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text("CREATE TABLE outbox (letter TEXT)"))  # somebody else's
    with pytest.raises(ConfigError, match=r"cannot be used: .*outbox.* already exists"):
        open_database(new_url)
    assert inspect(database.engine).get_table_names() == ["outbox"]
    database.close()


URLS = {
    "nonsense": "write sqlite:///FILE or postgresql",
    f"postgresql+psycopg://ada:{SECRET}@host:port/jobs": "write sqlite:///FILE or postgresql",
    f"mysql://ada:{SECRET}@host/jobs": "cannot be mysql; write sqlite:///FILE or postgresql",
    f"postgres://ada:{SECRET}@host/jobs": "cannot be postgres; write",
    "sqlite://": "cannot be in memory",
    "sqlite:///:memory:": "cannot be in memory",
    "sqlite:////dev/null/jobs.db": "/dev/null/jobs.db cannot be written",
    f"postgresql+psycopg://ada:{SECRET}@127.0.0.1:1/jobs": r"ada:\*\*\*@127\.0\.0\.1:1/jobs cannot be used: .*refused",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_leads_nowhere_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=URLS[url]) as caught:
        open_database(url)
    assert SECRET not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'aiprod\[postgresql\]'"):
        open_database("postgresql+psycopg://ada@host/jobs")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("a letter to ada, " * 99)
    with pytest.raises(ConfigError, match=r"jobs\.db cannot be used: file is not a database"):
        open_database(f"sqlite:///{tmp_path / 'jobs.db'}")


def test_a_file_with_prompts_is_nobody_elses_business(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
    with database.read():
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("jobs.db*")}
    assert modes == {0o600}
    database.close()


def test_the_databases_clock_is_the_wall_clock_in_fractions_of_a_second(database: Database) -> None:
    with database.read() as connection:
        times = [connection.execute(select(Clock())).scalar_one() for _ in range(3) if not time.sleep(0.005)]
    assert times[0] < times[1] < times[2] and abs(times[2] - time.time()) < 5


def test_a_reader_does_not_wait_for_a_writer(store: JobStore, database: Database) -> None:
    job = create(store)
    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET family = 'ltx2'"))
        assert store.get(job.id) == job


def test_a_writer_waits_for_another_one(store: JobStore, database: Database) -> None:
    done: list[float] = []

    def work() -> None:
        create(store)
        done.append(time.monotonic())

    with database.write() as connection:
        connection.execute(text("UPDATE fairness SET virtual_time = 1"))
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        before = time.monotonic()
    thread.join(timeout=30)
    assert done and done[0] > before


def test_a_lost_connection_is_told_as_such_and_the_next_one_works(server_database: Database) -> None:
    store = JobStore(server_database, QueueLimits())
    with pytest.raises(UnavailableError, match="try again in a few seconds"):
        lose_connection(server_database)
    assert store.get("video_0") is None


def lose_connection(database: Database) -> None:
    with database.write() as connection:
        mine = connection.scalar(text("SELECT pg_backend_pid()"))
        with database.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
        connection.execute(text("SELECT 1"))
