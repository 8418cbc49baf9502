"""200 jobs under blows on SQLite and on PostgreSQL -> docs/reliability.json: make faults

Every stage, the dispatcher and the ingress are killed and stopped beyond the lease, and Serve's controller is killed, while jobs run.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import ray

from tests.api.receiver import Receiver, receiving
from tests.faults.chaos import CONTROLLER, Blow, Outcome, await_all, beaten, submit
from tests.faults.counting import SLOW, steps_of, wait_for
from tests.graph import ROOT, Graph, deployment_of, graph_config, running_graph
from tests.postgres import find_programs, running_postgres

JOBS = 200
STOPPED_SECONDS = 45.0
EVERY_SECONDS = 8.0
TARGETS = ("text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder", "dispatcher", "ingress")
BLOWS = (*(Blow(t) for t in TARGETS), *(Blow(t, STOPPED_SECONDS) for t in TARGETS), Blow(CONTROLLER))
RESULTS = ROOT / "docs/reliability.json"


def config_for(database: str | None) -> dict[str, Any]:
    """Health checks that notice a stopped process in seconds, and two of those who hold jobs and connections."""
    config = graph_config()
    for application in config["applications"]:
        for deployment in application["deployments"]:
            deployment |= {"health_check_period_s": 2, "health_check_timeout_s": 6}
    for name in ("dispatcher", "ingress"):
        deployment_of(config, name)["num_replicas"] = 2
    deployment_of(config, "dispatcher")["user_config"] |= {"lease_seconds": 6, "max_attempts": 20}
    args = config["applications"][1]["args"]
    args["outgoing"] = {"enabled": True, "allow_networks": ["127.0.0.0/8"]}
    if database is not None:
        args["database"] = database
    return config


def beat(graph: Graph) -> Outcome:
    started = time.monotonic()
    with receiving() as receiver:
        with beaten(BLOWS, every_seconds=EVERY_SECONDS) as hits:
            ids = submit(graph, JOBS, webhook=receiver.url)
        videos = await_all(graph, ids, patience=1800)
        seconds = time.monotonic() - started
        # For the last webhooks (one whose dispatcher died is due again after its lease of a minute), and for any that should not come.
        time.sleep(90)
        return Outcome(videos, announced_by(receiver), hits, seconds)


def announced_by(receiver: Receiver) -> Counter[str]:
    """Events of completion for each job; a delivery that came twice is one event."""
    events: dict[str, str] = {}
    while not receiver.came.empty():
        headers, payload = receiver.next(timeout=1)
        event = json.loads(payload)
        if event["type"] == "video.completed":
            events[headers["webhook-id"]] = event["data"]["id"]
    return Counter(events.values())


def cancel_times(graph: Graph, *, count: int = 10) -> tuple[list[float], list[int]]:
    """Seconds until a cancellation was answered, and the steps that ended after those that the job had told of."""
    seconds, steps = [], []
    with graph.client() as client:
        for _ in range(count):
            before = steps_of("denoiser")
            video_id = client.post("/v1/videos", json=SLOW).json()["id"]
            told = wait_for(client, video_id, stage="denoiser")["current"]["done"]
            started = time.perf_counter()
            client.post(f"/v1/videos/{video_id}/cancel").raise_for_status()
            seconds.append(time.perf_counter() - started)
            steps.append(steps_of("denoiser") - before - told)
    return seconds, steps


def run(database: str | None) -> dict[str, Any]:
    with running_graph(config_for(database)) as graph:
        seconds, steps = cancel_times(graph)
        outcome = beat(graph)
    again = Counter(line["step"] for video in outcome.videos.values() for line in _first_of_each(video))
    return {
        "jobs": JOBS,
        "blows": outcome.blows,
        "seconds": round(outcome.seconds, 1),
        "statuses": dict(outcome.statuses),
        "completed_events_per_job": dict(Counter(outcome.announced.values())),
        "jobs_by_last_attempt": {str(attempt): count for attempt, count in sorted(outcome.attempts.items())},
        "steps_run_again": dict(again),
        "cancel_seconds": {"median": round(statistics.median(seconds), 3), "most": round(max(seconds), 3)},
        "steps_after_the_told_ones": sorted(steps),
    }


def _first_of_each(video: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of steps that had run to their end before."""
    seen: set[str] = set()
    again = []
    for line in video["stages"]:
        if line["step"] in seen and not line["cache_hit"]:
            again.append(line)
        seen.add(line["step"])
    return again


def main() -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    facts: dict[str, Any] = {"commit": commit, "cpu": platform.processor() or platform.machine(), "ray": ray.__version__}
    results = {"sqlite": run(None)}
    if (programs := find_programs()) is None:
        raise SystemExit("PostgreSQL is not installed: initdb is neither in PATH nor in /usr/lib/postgresql/*/bin")
    with running_postgres(programs) as server:
        results["postgresql"] = run(server.url())
    RESULTS.write_text(json.dumps({**facts, **results}, indent=2) + "\n", encoding="utf-8")
    for name, result in results.items():
        held = result["statuses"] == {"completed": JOBS} and result["completed_events_per_job"] == {1: JOBS}
        sys.stderr.write(f"{name}: {'every job ended completed, once' if held else f'NOT HELD: {result}'}\n")
        if not held:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
