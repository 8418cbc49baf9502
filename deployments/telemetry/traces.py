"""a client's traceparent, or none -> the trace of a job, kept in its row -> the ids of all its spans -> spans, handed to whoever exports

The ids of a job's span and of its attempts' are drawn from the row, not at random: whoever goes on with a job after a crash, in
whatever process, hangs what it does where it belongs, and the job's own span is written once, by who ends the job.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from deployments.telemetry.exporting import exporter

# W3C Trace Context, version 00; of later versions these fields are the same, and more may follow.
TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
LONGEST = 512  # characters of a header that is looked at


@dataclass(frozen=True)
class TraceContext:
    """A place in a trace: whose child comes next. What is not sampled is exported by nobody."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def parse(cls, header: str | None) -> "TraceContext | None":
        """None for what is no traceparent, as the recommendation has it: then a trace begins."""
        found = None if header is None or len(header) > LONGEST else TRACEPARENT.fullmatch(header.strip())
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & 1))

    @classmethod
    def new(cls, *, sampled: bool) -> "TraceContext":
        return cls(secrets.token_hex(16), secrets.token_hex(8), sampled)

    def child(self, *names: object) -> "TraceContext":
        """Within this; of the same names always the same one, without any at random."""
        span_id = hashlib.sha256("/".join(map(str, (self.span_id, *names))).encode()).hexdigest()[:16] if names else secrets.token_hex(8)
        return TraceContext(self.trace_id, span_id, self.sampled)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


@dataclass(frozen=True)
class Span:
    """Something that took from `start` to `end`, in seconds since 1970. `error` says in a word what it ended with, if with none."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start: float
    end: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[tuple[str, float]] = ()
    error: str | None = None
    kind: str = "internal"


def record(span: Span) -> None:
    """Hands a span on; costs next to nothing where none is wanted, and never waits."""
    if span.context.sampled and (to := exporter()) is not None:
        to.take(span)


def is_recorded(context: TraceContext | None) -> bool:
    """Whether spans here go anywhere."""
    return context is not None and context.sampled and exporter() is not None


def job_context(traceparent: str | None, job_id: str) -> TraceContext | None:
    """Of the span of a job with this in its row."""
    parent = TraceContext.parse(traceparent)
    return None if parent is None else parent.child("job", job_id)


def attempt_context(traceparent: str | None, job_id: str, attempt: int) -> TraceContext | None:
    job = job_context(traceparent, job_id)
    return None if job is None else job.child("attempt", attempt)


_current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def current() -> TraceContext:
    """Of the request that is being answered; without one a trace that nobody exports, so that logs have an id."""
    return _current.get() or TraceContext.new(sampled=False)


@dataclass
class Request:
    """A request that is being answered: what its span will say."""

    name: str
    attributes: dict[str, Any]
    error: str | None = None


@contextmanager
def answering(traceparent: str | None, name: str, attributes: Mapping[str, Any]) -> Iterator[Request]:
    """The span of a request: the client's trace goes on, or one begins. A job that is asked for within belongs to it."""
    parent, request, start = TraceContext.parse(traceparent), Request(name, dict(attributes)), time.time()
    context = _begin(parent, name)
    _current.set(context)  # not taken back: each request has a task of its own, and a stream may end in another
    try:
        yield request
    except BaseException as error:
        request.error = type(error).__name__
        raise
    finally:
        if context is not parent:
            said: dict[str, Any] = {"attributes": request.attributes, "error": request.error, "kind": "server"}
            record(Span(request.name, context, parent, start, time.time(), **said))


def _begin(parent: TraceContext | None, name: str) -> TraceContext:
    to = exporter()
    if to is None:
        return parent or TraceContext.new(sampled=False)
    trace_id = TraceContext.new(sampled=False).trace_id if parent is None else parent.trace_id
    return TraceContext(trace_id, secrets.token_hex(8), to.samples(trace_id, parent, name))
