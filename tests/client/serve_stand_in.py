#!/usr/bin/env python3
"""a stand-in for Ray's `serve run`: answers /readyz on the config's port and writes down how it ended

The environment says how it behaves: STAND_IN_STATE is the state that it reports, STAND_IN_EXIT a code to end with at once.
"""

import http.server
import json
import os
import sys
from pathlib import Path

STATE = os.environ.get("STAND_IN_STATE", "RUNNING")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if STATE == "RUNNING" else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "as the state says", "applications": {"miniature": STATE}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def main() -> None:
    *_, config = sys.argv
    _, _, options = Path(config).read_text().partition("http_options:")
    port = next(int(line.split()[-1]) for line in options.splitlines() if line.strip().startswith("port:"))
    if code := os.environ.get("STAND_IN_EXIT"):
        sys.exit(int(code))
    note = Path(os.environ["STAND_IN_NOTE"])
    try:
        http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
    except KeyboardInterrupt:
        data = os.environ.get("AIPROD_DATA")
        note.write_text("ended in order" + (f", with its data in {data}" if data else ""))


if __name__ == "__main__":
    main()
