"""traffic files -> played by locust against stand-ins of both faces -> the result, the report and the exit code

Locust replaces the sockets and threads of the process that imports it: each run is a process of its own. They run at the same time.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.client.stand_in import problem
from tests.loadtests.slow_stand_ins import Graph, slow_graph

ROOT = Path(__file__).parents[2]
SHORT, LONG, NEVER, SLOW = 9, 17, 33, 41  # frames
SECONDS = {SHORT: 0.05, LONG: 2.0, NEVER: 600.0, SLOW: 1.5}


@dataclass
class Played:
    """What a run left behind."""

    code: int
    said: str
    result: dict[str, Any]
    report: str
    graph: Graph

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.result["rows"] if row["class"] == name]


def of_class(name: str, persona: str, frames: int, at: list[float], **more: Any) -> dict[str, Any]:
    return {"name": name, "persona": persona, "request": {"num_frames": frames}, "arrival": {"kind": "at", "seconds": at}, **more}


RUNS: dict[str, dict[str, Any]] = {
    "mixed": {
        "options": ["--face", "both", "--slo", "p95=30s,errors=0%", "--slo", "drafts:p95=20s"],
        "classes": [
            of_class("films", "long_video", LONG, [0.0, 0.05, 0.1, 0.15]),
            of_class("drafts", "steady", SHORT, [0.2, 0.4, 0.6, 0.8]),
            of_class("crowd", "burst", SHORT, [0.5] * 20),
            of_class("fickle", "cancel_happy", NEVER, [0.1, 0.7], cancels=1.0, cancel_after=0.3),
        ],
    },
    "slowed": {
        "options": ["--face", "both", "--slo", "drafts:p95=1s"],
        "classes": [of_class("drafts", "steady", SLOW, [0.0, 0.2]), of_class("crowd", "burst", SHORT, [0.0])],
    },
    "refused": {
        "options": ["--face", "http", "--slo", "errors=1%", "--patience", "6"],
        "classes": [of_class("drafts", "steady", SHORT, [0.0, 0.2]), of_class("stuck", "long_video", NEVER, [0.0])],
    },
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    with ExitStack() as stack:
        graphs = {name: stack.enter_context(slow_graph(SECONDS)) for name in RUNS}
        gone = {f"GET /v1/videos/http_{place}/content": problem(410, "it is gone", code="gone") for place in range(3)}
        graphs["refused"].http.answers.update(gone)
        folders = {name: tmp_path_factory.mktemp(name) for name in RUNS}
        running = {name: stack.enter_context(start(graphs[name], folders[name], **RUNS[name])) for name in RUNS}
        stack.callback(lambda: [process.kill() for process in running.values()])
        yield {name: ended(process, graphs[name], folders[name]) for name, process in running.items()}


def start(graph: Graph, folder: Path, *, options: list[str], classes: list[Any]) -> subprocess.Popen[str]:
    (folder / "traffic.yaml").write_text(yaml.safe_dump({"name": "test", "seconds": 1.0, "classes": classes}))
    return subprocess.Popen(command(graph, folder, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def command(graph: Graph, folder: Path, *options: str) -> list[str]:
    named = ["--host", graph.url, "--grpc", graph.grpc, "--traffic", str(folder / "traffic.yaml"), "--out", str(folder)]
    return [sys.executable, "-m", "loadtests", *named, *options]


def ended(process: subprocess.Popen[str], graph: Graph, folder: Path) -> Played:
    said, _ = process.communicate(timeout=110)
    assert (folder / "result.json").exists(), said
    result = json.loads((folder / "result.json").read_text())
    return Played(process.returncode, said, result, (folder / "report.html").read_text(), graph)


def test_videos_are_made_over_both_faces_and_the_gate_holds(played: dict[str, Played]) -> None:
    run = played["mixed"]
    counts = [run.result[name] for name in ("arrivals", "completed", "cancelled", "failed")]
    assert (run.code, run.result["broken"], counts) == (0, [], [30, 28, 2, 0]), run.said
    assert {name: each["arrivals"] for name, each in run.result["by_class"].items()} == {"films": 4, "drafts": 4, "crowd": 20, "fickle": 2}
    assert [face for face, _, _ in run.graph.videos.asked].count("grpc") == 15
    assert all(row["bytes"] > 0 and row["id"] for row in run.result["rows"] if row["status"] == "completed")


def test_who_changes_their_mind_has_the_job_cancelled_over_either_face(played: dict[str, Played]) -> None:
    fickle = played["mixed"].rows("fickle")
    assert [(row["status"], row["face"]) for row in fickle] == [("cancelled", "http"), ("cancelled", "grpc")]
    assert all(row["latency"] >= 0.3 for row in fickle)
    assert {row["id"] for row in fickle} == played["mixed"].graph.videos.cancelled


def test_nobody_waits_for_a_slow_answer_before_asking(played: dict[str, Played]) -> None:
    """All thirty are due within a second; each film takes two."""
    run = played["mixed"]
    films = run.rows("films")
    first_answer = min(row["at"] + row["latency"] for row in films)
    assert first_answer >= 2.0
    assert all(row["at"] + row["late"] < first_answer for row in run.result["rows"])
    assert run.result["most_late"] == max(row["late"] for row in run.result["rows"])


def test_the_report_tells_of_personas_and_of_every_call(played: dict[str, Played]) -> None:
    report = played["mixed"].report
    assert all(
        persona in report for persona in ("films (long_video)", "drafts (steady)", "crowd (burst)", "fickle (cancel_happy), cancelled")
    )
    assert all(call in report for call in ("POST /v1/videos", "CreateVideo", "DownloadVideo", "/content"))


def test_a_stage_that_is_slowed_breaks_the_promise_and_the_run_fails(played: dict[str, Played]) -> None:
    run = played["slowed"]
    assert run.code == 1 and run.result["failed"] == 0
    assert len(run.result["broken"]) == 1 and run.result["broken"][0].startswith("drafts: p95 is ")
    assert f"promise broken: {run.result['broken'][0]}" in run.said


def test_a_wrong_status_and_a_video_that_never_ends_are_failures(played: dict[str, Played]) -> None:
    run = played["refused"]
    assert run.code == 1 and (run.result["failed"], run.result["completed"]) == (3, 0)
    assert all("410" in row.get("error", "") and "it is gone" in row["error"] for row in run.rows("drafts"))
    assert run.rows("stuck")[0]["error"] == "it was not finished after 6 s"
    assert run.result["broken"] == ["errors are 100.00%, above 1.00%"]
