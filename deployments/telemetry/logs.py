"""whose work is done -> every line that is logged meanwhile, in this process

Ray Serve writes lines as JSON where `logging_config: {encoding: JSON}` or RAY_SERVE_LOG_ENCODING=JSON says so, with whatever a record has
besides the usual; here it gets `job` (Serve strikes out `job_id`, which is Ray's), `attempt`, `trace_id` and `step`. Prompts are no part of
any line.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import MemoryHandler
from typing import Any

from ray._common.formatters import JSONFormatter

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
    _write_alike(logging.getLogger("ray.serve"))


def _write_alike(logger: logging.Logger) -> None:
    """What goes to stderr too, which Serve leaves as text: in a pod that is all that anybody reads."""
    for file in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
        if isinstance(written := file.target and file.target.formatter, JSONFormatter):
            for stream in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
                stream.setFormatter(written)
                stream.filters = list(dict.fromkeys([*stream.filters, *file.filters]))


class _Factory:
    """Makes records as before, and adds the fields. A factory, since a filter sees its own logger's records alone."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record = self._make(*arguments, **named)
        for name, value in _said.get().items():
            setattr(record, name, value)
        return record
