"""one step of one job, as its stage does it -> its span, and below it those of what it waited for and did"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from aiprod_components.plan import Work
from deployments.telemetry import names
from deployments.telemetry.traces import Span, TraceContext, is_recorded, record

Mark = tuple[int, int, float]  # so many steps of so many were done, and when


class StepSpans:
    """A block in which a step is done. Its spans are written when it ends, however it ends; where nobody wants them it does nothing."""

    def __init__(self, traceparent: str | None, job: str, *, step: str, stage: str, replica: str) -> None:
        parent = TraceContext.parse(traceparent)
        self._parent = parent if is_recorded(parent) else None
        self._name = names.STEP.format(step=step)
        self._attributes: dict[str, Any] = {names.JOB_ID: job, names.STEP_NAME: step, names.STAGE: stage, names.REPLICA: replica}
        self._started, self._queued = time.time(), 0.0
        self._phases: list[tuple[str, float, float]] = []
        self._work: Work | None = None
        self.marks: Sequence[Mark] = ()

    @property
    def are_wanted(self) -> bool:
        return self._parent is not None

    def begin(self, *, queued: float, work: Work | None) -> None:
        """The inputs have been there for so many seconds; what the call costs, if somebody wants to know."""
        self._started, self._queued, self._work = time.time(), queued, work

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.time()
        try:
            yield
        finally:
            self._phases.append((name, started, time.time()))

    def __enter__(self) -> "StepSpans":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._parent is not None:
            self._write(self._parent, None if kind is None else kind.__name__)

    def _write(self, parent: TraceContext, error: str | None) -> None:
        context, end, ready = parent.child(), time.time(), self._started - self._queued
        told = {names.QUEUED_SECONDS: self._queued, names.RUN_SECONDS: end - self._started}
        work = {} if self._work is None else {names.TOKENS: self._work.tokens, names.NETWORK_CALLS: self._work.network_calls}
        record(Span(self._name, context, parent, ready, end, self._attributes | told | work, error=error))
        record(Span(names.QUEUED, context.child(), context, ready, self._started, self._attributes))
        for name, started, ended in self._phases:
            inner = context.child()
            record(Span(name, inner, context, started, ended, self._attributes))
            if name == names.RUN:
                self._write_batches(inner, started)

    def _write_batches(self, parent: TraceContext, started: float) -> None:
        """A span from mark to mark: as many as there are marks, of which the engine makes a few, however many steps there are."""
        first = 1
        for done, total, at in self.marks:
            attributes = {**self._attributes, names.FIRST_STEP: first, names.LAST_STEP: done, names.STEPS: total}
            record(Span(names.BATCH.format(first=first, last=done), parent.child(), parent, started, at, attributes))
            first, started = done + 1, at
