"""the database's clock -> seconds since 1970: the one time that all processes of the service share"""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class Clock(FunctionElement[float]):
    """The time at which the statement, not its transaction, reads it: a transaction may have waited for a lock."""

    inherit_cache = True
    name = "clock"
    type = Double()


@compiles(Clock, "sqlite")
def _sqlite(element: Clock, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Clock, "postgresql")
def _postgresql(element: Clock, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
