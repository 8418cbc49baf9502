"""whose work is done -> every line that is logged meanwhile, in this process

Ray Serve writes lines as JSON where `logging_config: {encoding: JSON}` or RAY_SERVE_LOG_ENCODING=JSON says so, with whatever a record has
besides the usual; here it gets `job_id`, `attempt`, `trace_id` and `step`. Prompts are no part of any line.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

FIELDS = ("job_id", "attempt", "trace_id", "step")

_said: ContextVar[Mapping[str, str]] = ContextVar("said", default={})  # noqa: B039 nobody changes it


@contextmanager
def saying(**fields: str) -> Iterator[None]:
    """Lines that are logged within, and by what is begun within, say so much more."""
    token = _said.set({**_said.get(), **fields})
    try:
        yield
    finally:
        _said.reset(token)


def install() -> None:
    """Once for each process, however often it is called."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Factory):
        logging.setLogRecordFactory(_Factory(make))


class _Factory:
    """Makes records as before, and adds the fields. A factory, since a filter sees its own logger's records alone."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record = self._make(*arguments, **named)
        for name, value in _said.get().items():
            setattr(record, name, value)
        return record
