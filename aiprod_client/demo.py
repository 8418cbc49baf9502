"""the graph, started -> a prompt over HTTP -> demo.mp4 and the time of every stage -> the graph, stopped

python -m aiprod_client.demo
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from aiprod_client.client import Client
from aiprod_client.errors import AiprodClientError
from aiprod_client.server import ROOT, ServerError, free_port, running_server
from aiprod_client.settings import VideoSettings
from aiprod_client.terminal import job_bars, summary, times_table
from aiprod_components.errors import AiprodError

PROMPT = "a big red ball bounces on a navy background"
SETTINGS = VideoSettings(model="miniature", size="128x128", num_frames=33, seed=3)
OUTPUT = Path("demo.mp4")
PATIENCE_SECONDS = 600.0
SHOWN_LINES = 30


def main() -> int:
    console = Console(highlight=False)
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        # Jobs of its own: a server that runs beside it shall neither take them nor lend its.
        graph = running_server(ROOT / "serve_config.yaml", port=free_port(), log=log, data=Path(folder))
        try:
            with console.status("starting the graph"), graph as server:
                console.print(f"ready in {server.seconds_to_ready:.0f} s: {server.url}")
                with Client(server.url) as client, job_bars(console=console) as show:
                    video = client.generate(PROMPT, SETTINGS, timeout=PATIENCE_SECONDS, on_change=show)
                OUTPUT.write_bytes(video.data)
                console.print(f"“{PROMPT}”")
                console.print(times_table(video.timings))
                console.print(summary(video, path=str(OUTPUT)))
        except (AiprodError, AiprodClientError, ServerError) as error:
            log.seek(0)
            sys.stderr.writelines(log.read().decode(errors="replace").splitlines(keepends=True)[-SHOWN_LINES:])
            print(f"demo: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
