"""a stand-in for the graph's HTTP face: it speaks the contract, makes no videos, and keeps what it was sent"""

import base64
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

VIDEO = bytes(range(256)) * 800  # an mp4, as far as the client knows; some reads long
ETAG = '"the-first"'
PREVIEW = b"RIFF, a small picture"
STAGES = [
    {"step": "prompt", "stage": "text_encoder", "replica": "a", "queued_seconds": 0.5, "run_seconds": 0.0123, "attempt": 1},
    {"step": "video", "stage": "vae_decoder", "replica": "b", "queued_seconds": 0.1, "run_seconds": 2.5, "cache_hit": True, "attempt": 1},
]
NEW: dict[str, Any] = {
    "object": "video",
    "created_at": 1_790_000_000,
    "completed_at": None,
    "expires_at": None,
    "model": "miniature",
    "pipeline": "ti2vid_two_stages",
    "prompt": None,
    "progress": 0,
    "seconds": "2.0625",
    "size": "128x128",
    "num_frames": 33,
    "fps": 16.0,
    "seed": 7,
    "status": "queued",
    "error": None,
    "remixed_from_video_id": None,
    "priority": 0,
    "queue_position": 2,
    "current": None,
    "stages": [],
    "cost": 123.4,
    "media_type": None,
    "frames_sha256": None,
    "a_field_of_tomorrow": {"is": "here"},
}
# What every video goes through, one change after the other.
SCRIPT: list[dict[str, Any]] = [
    {"queue_position": 1},
    {"status": "in_progress", "queue_position": None, "progress": 10, "stages": STAGES[:1]},
    {"progress": 50, "current": {"step": "video", "stage": "vae_decoder", "done": 1, "total": 2}},
    {
        "status": "completed",
        "progress": 100,
        "current": None,
        "stages": STAGES,
        "completed_at": 1_790_000_009,
        "media_type": "video/mp4",
        "frames_sha256": "0" * 64,
    },
]


@dataclass(frozen=True)
class Answer:
    """`cut` ends the connection after so many bytes of the body; a body of pieces is sent as they come."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Received:
    """A request: `call` is "METHOD /path", `body` JSON where it is such."""

    call: str
    body: Any
    headers: dict[str, str]
    query: dict[str, str]


Respond = Callable[[Received], Answer]


def json_answer(record: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(json.dumps(record).encode(), status, {"content-type": "application/json", **(headers or {})})


def problem(status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    body = {
        "type": f"urn:aiprod:error:{code}",
        "title": "as it may be",
        "status": status,
        "detail": message,
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code},
    }
    return Answer(json.dumps(body).encode(), status, {"content-type": "application/problem+json", **(headers or {})})


def event(kind: str, record: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(record)}\n\n".encode()


def stream(*pieces: bytes, ends: bool = True) -> Answer:
    """Events; without an end, the connection breaks after the last one."""
    return Answer(pieces, 200, {"content-type": "text/event-stream"}, cut=None if ends else sum(map(len, pieces)))


def ready_answers() -> dict[str, Any]:
    """What a graph that is up says."""
    return {
        "GET /readyz": json_answer({"status": "ready", "applications": {"miniature": "RUNNING", "api": "RUNNING"}}),
        "GET /v1/models": json_answer({"object": "list", "data": [{"id": "miniature", "object": "model"}]}),
        "POST /v1/plans": json_answer({"family": "miniature", "pipeline": "ti2vid_two_stages", "output": "video", "steps": []}),
    }


class StandIn(ThreadingHTTPServer):
    """Gives the answer that stands in `answers` under "METHOD /path", the first of a list as long as there are more; otherwise it keeps
    videos that go through `script`, a change for each time that they are looked at."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: dict[str, Answer | list[Answer] | Respond] = ready_answers()
        self.received: list[Received] = []
        self.script = SCRIPT
        self.videos: dict[str, dict[str, Any]] = {}
        self.content, self.etag, self.cuts = VIDEO, ETAG, list[int]()
        self._changes: dict[str, Iterator[dict[str, Any]]] = {}
        self._by_key: dict[str, str] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def calls(self) -> list[str]:
        return [received.call for received in self.received]

    def bodies(self, call: str) -> list[Any]:
        return [received.body for received in self.received if received.call == call]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up, which is theirs to do; whatever else goes wrong is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, received: Received) -> Answer:
        with self.lock:
            self.received.append(received)
            given = self.answers.get(received.call) or self._route(received)
            if not isinstance(given, Answer) and not callable(given):
                given = given.pop(0) if len(given) > 1 else given[0]
        return given if isinstance(given, Answer) else given(received)

    def _route(self, received: Received) -> Answer:
        for pattern, respond in ROUTES.items():
            if found := re.fullmatch(pattern, received.call):
                name = found.groupdict().get("id")
                if name is not None and name not in self.videos:
                    return problem(404, f"there is no video {name}", code="not_found")
                return respond(self, received, name or "")
        return problem(404, f"{received.call} is not a route", code="not_found")

    def create(self, received: Received, name: str) -> Answer:
        key = received.headers.get("idempotency-key", "")
        replayed = key in self._by_key
        if not replayed:
            self._by_key[key] = self._add(received, name)
        headers = {"idempotent-replayed": "true"} if replayed else {}
        return json_answer(self.videos[self._by_key[key]], headers=headers)

    def _add(self, received: Received, source: str) -> str:
        name = f"video_{len(self.videos) + 1:032x}"
        asked = received.body if isinstance(received.body, dict) else {}
        self.videos[name] = {**NEW, "id": name, **{field: asked[field] for field in ("prompt", "priority") if field in asked}}
        self.videos[name]["remixed_from_video_id"] = source or None
        self._changes[name] = iter(self.script)
        return name

    def retrieve(self, received: Received, name: str) -> Answer:
        self._change(name)
        return json_answer(self.videos[name], headers={"openai-poll-after-ms": "150"})

    def list(self, received: Received, name: str) -> Answer:
        videos = list(self.videos.values())
        videos = videos if received.query["order"] == "asc" else videos[::-1]
        start = [video["id"] for video in videos].index(received.query["after"]) + 1 if "after" in received.query else 0
        page = videos[start : start + int(received.query["limit"])]
        ids = [video["id"] for video in page] or [None]
        more = start + len(page) < len(videos)
        return json_answer({"object": "list", "data": page, "first_id": ids[0], "last_id": ids[-1], "has_more": more})

    def cancel(self, received: Received, name: str) -> Answer:
        self.videos[name]["status"] = "cancelled"
        return json_answer(self.videos[name])

    def delete(self, received: Received, name: str) -> Answer:
        del self.videos[name]
        return json_answer({"id": name, "object": "video.deleted", "deleted": True})

    def events(self, received: Received, name: str) -> Answer:
        return stream(*self._events(name))

    def _events(self, name: str) -> Iterator[bytes]:
        yield b": hello\n\n" + event("video", self.videos[name])
        picture = f"data:image/webp;base64,{base64.b64encode(PREVIEW).decode()}"
        while self.videos[name]["status"] in ("queued", "in_progress"):
            self._change(name)
            if self.videos[name]["current"]:
                yield event("preview", {"image": picture})
            yield event("video", self.videos[name])

    def _change(self, name: str) -> None:
        if self.videos[name]["status"] in ("queued", "in_progress"):
            self.videos[name] = {**self.videos[name], **next(self._changes[name], {})}

    def serve_content(self, received: Received, name: str) -> Answer:
        cut = self.cuts.pop(0) if self.cuts else None
        headers = {"content-type": "video/mp4", "etag": self.etag}
        asked = re.fullmatch(r"bytes=(\d+)-", received.headers.get("range", ""))
        if asked is None or received.headers.get("if-range") != self.etag:
            return Answer(self.content, 200, headers, cut=cut)
        start, size = int(asked[1]), len(self.content)
        return Answer(self.content[start:], 206, {**headers, "content-range": f"bytes {start}-{size - 1}/{size}"}, cut=cut)


_ID = r"/v1/videos/(?P<id>[^/]+)"
ROUTES: dict[str, Callable[[StandIn, Received, str], Answer]] = {
    r"POST /v1/videos": StandIn.create,
    r"GET /v1/videos": StandIn.list,
    rf"POST {_ID}/remix": StandIn.create,
    r"POST /v1/videos/(edits|extensions)": StandIn.create,
    rf"GET {_ID}": StandIn.retrieve,
    rf"DELETE {_ID}": StandIn.delete,
    rf"POST {_ID}/cancel": StandIn.cancel,
    rf"GET {_ID}/events": StandIn.events,
    rf"GET {_ID}/content": StandIn.serve_content,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        is_json = headers.get("content-type") == "application/json"
        received = Received(f"{self.command} {url.path}", json.loads(body) if is_json else body, headers, dict(parse_qsl(url.query)))
        answer = cast(StandIn, self.server).answer(received)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        try:
            self._send(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        if isinstance(answer.body, bytes):
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut])
        else:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in answer.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(0.002)  # so that pieces arrive as such
            self.wfile.write(b"" if answer.cut is not None else b"0\r\n\r\n")
        self.close_connection = self.close_connection or answer.cut is not None

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def running_stand_in(port: int = 0) -> Iterator[StandIn]:
    """On a port of its own, unless one is named."""
    with StandIn(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
