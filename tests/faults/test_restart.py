"""a server killed hard and started again -> what was queued and what was under way goes on by itself"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from aiprod_client.server import free_port, running_server
from tests.graph import CONFIG, PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3 * PATIENCE)]

LONG = {"prompt": "a red ball", "num_frames": 33, "size": "128x128", "num_inference_steps": 60, "seed": 1}
SMALL = {"prompt": "a blue ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2}


def get(url: str, video_id: str) -> dict[str, object]:
    return httpx.get(f"{url}/v1/videos/{video_id}", timeout=60, trust_env=False).json()


def ask(url: str, body: Mapping[str, object]) -> str:
    answer = httpx.post(f"{url}/v1/videos", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_queued_and_running_jobs_go_on_after_everything_was_killed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with running_server(CONFIG, port=free_port(), patience=PATIENCE, log=log, data=tmp_path / "data") as server:
            running = ask(server.url, LONG)
            queued = [ask(server.url, {**SMALL, "seed": seed}) for seed in range(4)]
            deadline = time.monotonic() + PATIENCE
            while (get(server.url, running)["current"] or {}).get("stage") != "denoiser":  # type: ignore[union-attr]
                assert time.monotonic() < deadline
                time.sleep(0.2)
            os.killpg(server.process.pid, signal.SIGKILL)
        with running_server(CONFIG, port=free_port(), patience=PATIENCE, log=log, data=tmp_path / "data") as server:
            videos = []
            while time.monotonic() < deadline + PATIENCE:
                videos = [get(server.url, video_id) for video_id in (running, *queued)]
                if all(video["status"] not in ("queued", "in_progress") for video in videos):
                    break
                time.sleep(0.5)
    assert [video["status"] for video in videos] == ["completed"] * 5, (tmp_path / "log").read_text(errors="replace")[-3000:]
