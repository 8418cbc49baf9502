"""a database of any age -> today's tables, in one transaction that all others wait for

A new revision is a new file in `versions`; the test that compares it with `tables.py` prints what it lacks. None leads back: a copy
of the database does.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text

from aiprod_components.errors import ConfigError

LOCK = 0x61697072  # any number that no other program in the same database takes


def migrate(connection: Connection, *, shown: str) -> None:
    """Makes or changes the tables within the connection's transaction; `shown` is what errors call the database.

    Raises ConfigError when a newer version of the service made them.
    """
    if connection.dialect.name == "postgresql":  # SQLite's transaction holds the lock already
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    newest, found = scripts.get_current_head(), MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigError(
            f"the job database {shown} was made by a newer version (its revision is {found}, the newest known here is {newest}); "
            "install that version, or name another database"
        )
    if found != newest:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes its time
        command.upgrade(config, "head")
