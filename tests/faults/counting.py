"""a running graph -> how many steps a stage has taken, and when a job has come to it"""

import time
from typing import Any

import httpx
from ray import serve

from tests.graph import PATIENCE

# Steps of a second or more, many of them: what goes on after it should have ended is seen.
SLOW = {"prompt": "a red ball", "num_frames": 33, "size": "256x256", "num_inference_steps": 100, "pipeline": "ti2vid_one_stage"}


def steps_of(stage: str) -> int:
    """Steps that the replicas of a stage have taken since they started, all together. Busy ones answer when they are free."""
    return sum(serve.get_deployment_handle(stage, app_name="miniature").broadcast("steps").results(timeout_s=60))


def wait_for(client: httpx.Client, video_id: str, *, stage: str, done: int = 1) -> dict[str, Any]:
    """The video once a stage is at work on it and has taken so many steps."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        video = client.get(f"/v1/videos/{video_id}").json()
        current = video["current"] or {}
        if current.get("stage") == stage and current["done"] >= done:
            return video
        assert video["status"] in ("queued", "in_progress"), video
        time.sleep(0.05)
    raise TimeoutError(f"{video_id} did not come to {stage}")
