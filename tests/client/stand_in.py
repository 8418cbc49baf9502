"""a stand-in for the graph's HTTP face: it speaks the contract, makes no videos, and keeps what it was sent"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

VIDEO = b"an mp4, as far as the client knows"
HEADERS = {
    "content-type": "video/mp4",
    "server-timing": 'prompt;dur=12.3;desc="text_encoder", video;dur=2500;desc="vae_decoder", queue;dur=1.0, total;dur=2513.4',
    "x-aiprod-seed": "7",
    "x-aiprod-pipeline": "ti2vid_two_stages",
    "x-aiprod-frames-sha256": "0" * 64,
}


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(record: Any, *, status: int = 200) -> Answer:
    return Answer(json.dumps(record).encode(), status, {"content-type": "application/json"})


def problem(status: int, message: str, *, code: str, param: str | None = None) -> Answer:
    body = {
        "type": f"urn:aiprod:error:{code}",
        "title": "as it may be",
        "status": status,
        "detail": message,
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code},
    }
    return Answer(json.dumps(body).encode(), status, {"content-type": "application/problem+json"})


def ready_answers() -> dict[str, Answer]:
    """What a graph that is up says."""
    return {
        "GET /readyz": json_answer({"status": "ready", "applications": {"miniature": "RUNNING", "api": "RUNNING"}}),
        "GET /v1/models": json_answer({"object": "list", "data": [{"id": "miniature", "object": "model"}]}),
        "POST /v1/plans": json_answer({"family": "miniature", "pipeline": "ti2vid_two_stages", "output": "video", "steps": []}),
        "POST /v1/videos/sync": Answer(VIDEO, headers=HEADERS),
    }


class StandIn(ThreadingHTTPServer):
    """Gives the answer that stands in `answers` under "METHOD /path"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = ready_answers()
        self.received: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        call = f"{self.command} {self.path}"
        server = cast(StandIn, self.server)
        server.received.append((call, json.loads(body) if body else None))
        answer = server.answers.get(call, problem(404, f"{self.path} is not a route", code="not_found"))
        self.send_response(answer.status)
        for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def running_stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
