"""one job on the graph -> lines of JSON that say whose they are, and nothing of its prompt"""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(PATIENCE + 120)


def lines(graph: Graph) -> Iterator[dict[str, Any]]:
    """What the replicas of the graph have written."""
    for path in (graph.session / "logs/serve").glob("replica_*.log"):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def test_a_line_says_whose_job_it_is_about_and_in_which_trace(graph: Graph) -> None:
    trace_id, word = secrets.token_hex(16), secrets.token_hex(8)
    body = {"prompt": f"a red ball {word}", "num_frames": 5, "size": "64x64", "num_inference_steps": 4, "loras": ["overflow"]}
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    with graph.client() as client:
        video = client.post("/v1/videos", json=body, headers=headers).json()
        deadline = time.monotonic() + PATIENCE
        while client.get(f"/v1/videos/{video['id']}").json()["status"] not in ("failed", "completed") and time.monotonic() < deadline:
            time.sleep(0.1)
    of_job = [line for line in lines(graph) if line.get("job_id") == video["id"]]
    assert of_job and {line["trace_id"] for line in of_job} == {trace_id}
    for line in of_job:
        assert {"asctime", "levelname", "name", "message", "deployment", "replica", "attempt"} <= line.keys()
    assert {"denoiser"} <= {line["deployment"] for line in of_job if "step" in line}
    assert {line["step"] for line in of_job if line["deployment"] == "denoiser"} == {"draft"}
    everything = "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in (graph.session / "logs").rglob("*") if path.is_file()
    )
    assert video["id"] in everything and word not in everything
