"""a running graph -> work, and blows to its processes meanwhile -> what became of every job"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from tests.graph import Graph, serve_client

CONTROLLER = "controller"
SMALL = {"num_frames": 5, "size": "64x64", "num_inference_steps": 4}
PIPELINES = ("ti2vid_two_stages", "ti2vid_one_stage")


@dataclass(frozen=True)
class Blow:
    """A signal to a process of a deployment (or Serve's controller): killed, or stopped for so many seconds."""

    target: str
    stopped_seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.target} " + ("kill -9" if self.stopped_seconds is None else f"SIGSTOP {self.stopped_seconds:g} s")


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs: their records, and the webhooks that came for each."""

    videos: dict[str, dict[str, Any]]
    announced: Counter[str]
    blows: list[str]
    seconds: float

    @property
    def statuses(self) -> Counter[str]:
        return Counter(video["status"] for video in self.videos.values())

    @property
    def attempts(self) -> Counter[int]:
        """Jobs by the number of the attempt that finished them."""
        return Counter(max((line["attempt"] for line in video["stages"]), default=1) for video in self.videos.values())


def pids_of(target: str) -> list[int]:
    """The processes of a deployment's running replicas, or the controller's."""
    if target == CONTROLLER:
        children = psutil.Process().children(recursive=True)
        return [child.pid for child in children if child.name().startswith("ray::ServeCon")]
    applications = serve_client().get_serve_details()["applications"]
    deployments = [d for application in applications.values() for name, d in application["deployments"].items() if name == target]
    return [replica["pid"] for d in deployments for replica in d["replicas"] if replica["state"] == "RUNNING" and replica["pid"]]


def strike(blow: Blow) -> bool:
    """Whether there was somebody to strike."""
    pids = pids_of(blow.target)
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGKILL if blow.stopped_seconds is None else signal.SIGSTOP)
    if blow.stopped_seconds is not None:
        timer = threading.Timer(blow.stopped_seconds, _go_on, [pids[0]])
        timer.daemon = True
        timer.start()
    return True


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@contextmanager
def beaten(blows: Sequence[Blow], *, every_seconds: float) -> Iterator[list[str]]:
    """Strikes one blow after the other until all are struck, beside the block. Gives the list of those that hit."""
    hits: list[str] = []
    over = threading.Event()

    def beat() -> None:
        for blow in blows:
            if over.wait(every_seconds):
                return
            for _ in range(200):
                if strike(blow):
                    hits.append(str(blow))
                    break
                if over.wait(0.5):
                    return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield hits
        thread.join()  # all blows are struck, whether or not work is left
    finally:
        over.set()
        thread.join()


def submit(graph: Graph, count: int, *, webhook: str | None = None) -> list[str]:
    """So many jobs, each asked for until the server has taken it: a client's retries with its idempotency key."""
    with ThreadPoolExecutor(8) as clients:
        return list(clients.map(lambda number: _submit_one(graph, number, webhook), range(count)))


def _submit_one(graph: Graph, number: int, webhook: str | None) -> str:
    body = {"prompt": f"a red ball, number {number}", "seed": number, "pipeline": PIPELINES[number % len(PIPELINES)], **SMALL}
    if webhook is not None:
        body["webhook_url"] = webhook
    headers = {"idempotency-key": f"{graph.url}-{number}-{webhook}"}
    while True:
        with suppress(httpx.HTTPError):
            answer = httpx.post(f"{graph.url}/v1/videos", json=body, headers=headers, timeout=30, trust_env=False)
            if answer.status_code == 200:
                return answer.json()["id"]
            assert answer.status_code in (429, 500, 503), answer.text
        time.sleep(0.5)


def await_all(graph: Graph, ids: Sequence[str], *, patience: float) -> dict[str, dict[str, Any]]:
    """The records of all jobs once none is live; as they are when patience ends."""
    videos: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for video_id in ids:
            if videos.get(video_id, {}).get("status") in ("completed", "failed", "cancelled"):
                continue
            with suppress(httpx.HTTPError, ValueError):
                answer = httpx.get(f"{graph.url}/v1/videos/{video_id}", timeout=30, trust_env=False)
                if answer.status_code == 200:
                    videos[video_id] = answer.json()
        if len(videos) == len(ids) and all(video["status"] not in ("queued", "in_progress") for video in videos.values()):
            break
        time.sleep(0.5)
    return videos
