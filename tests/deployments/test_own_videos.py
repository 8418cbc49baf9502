"""a finished video, and a span of it to be made anew -> over HTTP, on a real cluster, a video that is the same outside of the span"""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from aiprod_components.media.decode import decode_video
from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(PATIENCE + 120)

ASKED = {"prompt": "a big red ball moves right slowly on a black background", "num_frames": 33, "size": "128x128", "seed": 3}
# At 16 frames a second frames 12 to 19, which are in latent frames 3 to 5, which are frames 9 to 20.
SPAN = {"from_seconds": 0.8, "to_seconds": 1.2}
INSIDE = range(12, 20)
OUTSIDE = [*range(8), *range(26, 33)]  # the VAE looks at the latents beside


@pytest.fixture(scope="module")
def http(graph: Graph) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def completed(http: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    video = answer.json()
    for _ in range(600):
        if video["status"] not in ("queued", "in_progress"):
            break
        time.sleep(0.2)
        video = http.get(f"/v1/videos/{video['id']}").json()
    assert video["status"] == "completed", video
    return video


def frames_of(http: httpx.Client, video: dict[str, Any]) -> torch.Tensor:
    return decode_video(http.get(f"/v1/videos/{video['id']}/content").content).float()


def test_a_retake_of_ones_own_video_is_completed_and_what_lies_outside_of_its_span_stays(http: httpx.Client) -> None:
    source = completed(http, http.post("/v1/videos", json={**ASKED, "pipeline": "distilled"}))
    body = {
        "prompt": "a big blue cube spins quickly on a black background",
        "num_inference_steps": 4,
        "seed": 4,
        "video": {"id": source["id"]},
    }
    retake = completed(http, http.post("/v1/videos/edits", json={**body, **SPAN}))
    assert (retake["model"], retake["remixed_from_video_id"]) == (source["model"], source["id"])
    assert (retake["size"], retake["seconds"]) == (source["size"], source["seconds"])
    was, now = frames_of(http, source), frames_of(http, retake)
    assert was.shape == now.shape
    changed = (now - was).abs().mean(dim=(1, 2, 3))
    assert changed[OUTSIDE].max() < 2 and changed[INSIDE].min() > 3
