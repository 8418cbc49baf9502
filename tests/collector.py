"""a collector on this machine: OTLP over HTTP -> the spans that came, as plain values"""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class Received:
    """A span as a collector gets it; times in seconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    process: str


@dataclass
class Collector:
    """Where to send spans, and those that were sent."""

    url: str
    spans: list[Received] = field(default_factory=list)

    def of(self, trace_id: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def wait(self, trace_id: str, until: Callable[[list[Received]], bool], *, seconds: float = 30) -> list[Received]:
        """The spans of a trace once they are as they should be; as they are when that takes too long."""
        deadline = time.monotonic() + seconds
        while not until(self.of(trace_id)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.of(trace_id)


def sent_to(collector: Collector) -> dict[str, str]:
    """The environment of a process whose spans go there, soon."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, for as long as the block takes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            collector.spans += _read(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: it would be said on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _read(body: bytes) -> Iterator[Received]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        process = {entry.key: _value(entry.value) for entry in resource.resource.attributes}["service.instance.id"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    attributes={entry.key: _value(entry.value) for entry in span.attributes},
                    events=[event.name for event in span.events],
                    failed=span.status.code == 2,
                    process=process,
                )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(item) for item in value.array_value.values] if kind == "array_value" else kind and getattr(value, kind)
