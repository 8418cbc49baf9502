"""spans -> a bounded queue -> batches, sent to a collector by a thread of their own (OTLP over HTTP)

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) names a collector; every other OTEL_* setting is the SDK's. What the
collector does not take in time is dropped: nobody waits for it.
"""

import logging
import os
import socket
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deployments.telemetry.names import ERROR, SERVICE

if TYPE_CHECKING:
    from deployments.telemetry.traces import Span, TraceContext

log = logging.getLogger("ray.serve")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
NANO = 1_000_000_000
FLUSH_SECONDS = 2.0  # that a process which ends has for what it has not sent


_making = threading.Lock()  # the cache alone would let two threads that ask at once make one each


def exporter() -> "Exporter | None":
    """This process's; None where no collector is named."""
    with _making:
        return _made()


@lru_cache(maxsize=1)
def _made() -> "Exporter | None":
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if disabled or not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        return Exporter()
    except ImportError as error:
        said = "a collector is named (OTEL_EXPORTER_OTLP_ENDPOINT), and nothing exports to it (%s); pip install 'aiprod[telemetry]'"
        log.warning(said, error)
        return None
    except ValueError as error:  # the SDK's own reader of OTEL_*; a job is worth more than its trace
        log.warning("no traces are sent, since the SDK does not take one of %s: %s; mend or unset it", ", ".join(_set()), error)
        return None


def _set() -> list[str]:
    return sorted(name for name in os.environ if name.startswith("OTEL_"))


def flush() -> None:
    """What a process does before it ends."""
    if (to := exporter()) is not None:
        to.flush()


class Exporter:
    """Makes OpenTelemetry's spans of ours. Whether a new trace is sampled, OTEL_TRACES_SAMPLER decides."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # its library is an extra
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
        self._resource = Resource.create({"service.instance.id": f"{socket.gethostname()}-{os.getpid()}", **named})
        self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
        self._queue = BatchSpanProcessor(OTLPSpanExporter())

    def take(self, span: "Span") -> None:
        self._queue.on_end(_translated(span, self._resource))

    def samples(self, trace_id: str, parent: "TraceContext | None", name: str) -> bool:
        """Whether a span that begins is to be exported."""
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        context = None if parent is None else set_span_in_context(NonRecordingSpan(_place(parent, is_remote=True)))
        return self._sampler.should_sample(context, int(trace_id, 16), name).decision.is_sampled()

    def flush(self) -> None:
        # The SDK's own takes as long as the collector does, whatever time limit it is given.
        flushing = threading.Thread(target=self._queue.force_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def _translated(span: "Span", resource: Any) -> Any:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind, Status, StatusCode

    attributes = {name: value for name, value in span.attributes.items() if value is not None}
    return ReadableSpan(
        name=span.name,
        context=_place(span.context),
        parent=None if span.parent is None else _place(span.parent),
        resource=resource,
        attributes=attributes if span.error is None else {**attributes, ERROR: span.error},
        events=[Event(name, timestamp=int(at * NANO)) for name, at in span.events],
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR),
        start_time=int(span.start * NANO),
        end_time=int(max(span.start, span.end) * NANO),
        instrumentation_scope=InstrumentationScope(SERVICE),
    )


def _place(context: "TraceContext", *, is_remote: bool = False) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, TraceFlags(int(context.sampled)))
