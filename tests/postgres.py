"""PostgreSQL's own programs -> a server for one test session, in a folder of its own, which ends with it"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

PATIENCE = 30.0  # seconds to start
# A server for tests may lose everything with the machine.
HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "", "max_connections": "60"}


@dataclass(frozen=True)
class Postgres:
    """A running server, reached by a socket in its folder alone."""

    folder: Path

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        """The URL of a new database."""
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def create_schema(self, name: str) -> str:
        """The URL of a new schema, which to its users is as good as a database and takes no time to make."""
        self._execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.url()}&options=-csearch_path%3D{name}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: initdb is neither in PATH nor in /usr/lib/postgresql/*/bin")
    with running_postgres(programs) as server:
        yield server


def find_programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version."""
    in_path = shutil.which("initdb")
    found = [Path(in_path).resolve()] if in_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return next((initdb.parent for initdb in reversed(found) if (initdb.parent / "postgres").exists()), None)


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:  # short: the path of a socket has 107 characters
        folder, data, user = Path(name), Path(name) / "data", _unprivileged()
        if user:
            shutil.chown(folder, user["user"], user["group"])
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        settings = [word for name, value in HASTY.items() for word in ("-c", f"{name}={value}")]
        server = [*_dying_with_us(), programs / "postgres", "-D", data, "-k", folder, *settings]
        with (folder / "log").open("w") as log, subprocess.Popen(server, text=True, stdout=log, stderr=log, cwd=folder, **user) as process:
            try:
                _wait_for(folder, process)
                yield Postgres(folder)
            finally:
                process.send_signal(signal.SIGQUIT)  # at once: nobody will need the data
                process.wait(PATIENCE)


def _wait_for(folder: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")


def _unprivileged() -> dict[str, Any]:
    """For root, whom the server refuses to run as."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _dying_with_us() -> list[str]:
    """However this process ends; where the system has no such program it must end in order."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "QUIT"] if setpriv else []


def _version(initdb: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in initdb.parts[-3].split(".") if part.isdigit())
