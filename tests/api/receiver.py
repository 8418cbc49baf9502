"""a small HTTP server that takes what is posted to it"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What came, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.came: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    def next(self, *, timeout: float) -> tuple[dict[str, str], bytes]:
        """Headers and body of the next post."""
        return self.came.get(timeout=timeout)


@contextmanager
def receiving(*, status: int = 200) -> Iterator[Receiver]:
    """Answers every post with `status`."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.came.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
