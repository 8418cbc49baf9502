"""URL -> an engine for SQLite or PostgreSQL, its tables brought up to date -> transactions"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from aiprod_components.errors import ConfigError, UnavailableError
from deployments.jobs.migrations import migrate

BUSY_SECONDS = 30.0  # to wait for another writer
SQLITE_NEEDED = (3, 35)  # RETURNING
POSTGRESQL_SETTINGS = {
    # A process that was stopped in the middle of a transaction must not hold its locks for long.
    "lock_timeout": "30s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "30s",
    # Every query that may meet many rows has an index in its order. A queue fills faster than the server counts it anew, and a planner that
    # takes it for empty reads and sorts all of it: of 100,000 jobs a claim read 199,012 rows instead of 6.
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "jit": "off",
}
_migrating = threading.Lock()  # alembic keeps the migration under way in a global


class Database:
    """Transactions on one database; `close` gives back its connections."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Raises UnavailableError when the database cannot be reached."""
        with _explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Takes SQLite's one write lock at once, so never within another.

        Raises UnavailableError; only a commit whose answer was lost may have taken place all the same.
        """
        with _explained(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """The database, with its tables made or brought up to date, by one process at a time.

    `sqlite:///jobs.db` is a file beside the process, `postgresql+psycopg://user@host/name` a server. Raises ConfigError.
    """
    parsed = _parse(url)
    shown = parsed.render_as_string(hide_password=True)
    engine = BACKENDS[parsed.get_backend_name()](parsed)
    with ExitStack() as undo:
        undo.callback(engine.dispose)
        try:
            with _migrating, engine.execution_options(writes=True).begin() as connection:
                migrate(connection, shown=shown)
        except DBAPIError as error:
            raise ConfigError(f"the job database {shown} cannot be used: {_first_line(error)}") from error
        undo.pop_all()
    return Database(engine)


def upsert(connection: Connection, table: Table, values: Mapping[str, Any], *, change: Mapping[str, Any]) -> None:
    """Inserts `values`, or where the primary key is taken makes the `change`."""
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name](table)
    connection.execute(insert.values(values).on_conflict_do_update(index_elements=list(table.primary_key), set_=change))


def _parse(url: str) -> URL:
    known = "write sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"the job database's URL cannot be read; {known}") from error  # not shown: it may hold a password
    if parsed.drivername not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise ConfigError(f"the job database cannot be {parsed.drivername}; {known}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("the job database cannot be in memory, where it would be lost; name a file: sqlite:///jobs.db")
    return parsed


def _sqlite_engine(url: URL) -> Engine:
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is older than 3.35; take a newer Python, or PostgreSQL as the job database")
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, mode=0o600))  # prompts are nobody else's business
    except OSError as error:
        raise ConfigError(f"the job database {file} cannot be written: {error.strerror}") from error
    # The driver would begin transactions at moments of its own.
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": BUSY_SECONDS}, json_serializer=_to_json)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    settings = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_SETTINGS.items())
    asked = {"connect_timeout": "10", "application_name": "aiprod", "options": "", **url.query}
    url = url.set(drivername="postgresql+psycopg", query={**asked, "options": f"{settings} {asked['options']}"})
    try:
        return create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True, json_serializer=_to_json)
    except ImportError as error:
        raise ConfigError("the job database is PostgreSQL, whose driver is not installed; pip install 'aiprod[postgresql]'") from error


BACKENDS: dict[str, Callable[[URL], Engine]] = {"sqlite": _sqlite_engine, "postgresql": _postgresql_engine}
_to_json = partial(json.dumps, allow_nan=False, separators=(",", ":"))  # PostgreSQL's JSON has no NaN


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous = FULL")  # what a client was promised outlives a power cut
    connection.execute("PRAGMA foreign_keys = ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Readers then never wait for a writer. Raises ConfigError where the file system cannot."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:  # processes that start at once: SQLite does not wait here
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise ConfigError("the job database's file system has no shared memory for SQLite; take a local disk, or PostgreSQL")
        return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail when another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise UnavailableError("the job database cannot be reached or is too busy; try again in a few seconds") from error


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
