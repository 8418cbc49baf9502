"""one job on the graph -> lines of JSON that say whose they are, and nothing of its prompt"""

import io
import json
import logging
import secrets
import time
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from deployments.telemetry import logs
from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(PATIENCE + 120)


def lines(graph: Graph) -> Iterator[dict[str, Any]]:
    """What the replicas of the graph have written; other tests deploy other applications beside it, and their logs are text."""
    for path in [found for name in ("miniature", "api") for found in (graph.session / "logs/serve").glob(f"replica_{name}_*.log")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.startswith("{"), f"{path.name}: {line}"
            yield json.loads(line)


def test_a_line_says_whose_job_it_is_about_and_in_which_trace(graph: Graph) -> None:
    trace_id, word = secrets.token_hex(16), secrets.token_hex(8)
    body = {"prompt": f"a red ball {word}", "num_frames": 5, "size": "64x64", "num_inference_steps": 4, "loras": [{"name": "overflow"}]}
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    with graph.client() as client:
        video = client.post("/v1/videos", json=body, headers=headers).json()
        deadline = time.monotonic() + PATIENCE
        while client.get(f"/v1/videos/{video['id']}").json()["status"] not in ("failed", "completed") and time.monotonic() < deadline:
            time.sleep(0.1)
    of_job = [line for line in lines(graph) if line.get("job") == video["id"]]
    assert of_job and {line["trace_id"] for line in of_job} == {trace_id}
    for line in of_job:
        assert {"asctime", "levelname", "name", "message", "deployment", "replica", "attempt"} <= line.keys()
    assert {"miniature_denoiser"} <= {line["deployment"] for line in of_job if "step" in line}
    assert {line["step"] for line in of_job if line["deployment"] == "miniature_denoiser"} == {"draft"}
    everything = "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in (graph.session / "logs").rglob("*") if path.is_file()
    )
    assert video["id"] in everything and word not in everything


def test_what_goes_to_stderr_is_as_what_goes_to_the_file() -> None:
    logger, stream, file = logging.getLogger("tried"), logging.StreamHandler(io.StringIO()), logging.StreamHandler(io.StringIO())
    file.setFormatter(JSONFormatter())
    logger.handlers, logger.propagate = [stream, MemoryHandler(1, target=file)], False
    logs._write_alike(logger)
    with logs.saying(job="video_1"):
        logs.install()
        logger.warning("something %s", "happened")
    written = [json.loads(handler.stream.getvalue()) for handler in (stream, file)]
    assert written[0] == written[1] and (written[0]["job"], written[0]["message"]) == ("video_1", "something happened")
