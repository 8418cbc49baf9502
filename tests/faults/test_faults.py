"""processes killed under load: every job ends completed, once, and none does again what it had finished (the long run: make faults)"""

import time
from collections import Counter

import httpx
import pytest

from tests.api.receiver import receiving
from tests.faults.chaos import Blow, await_all, beaten, pids_of, strike, submit
from tests.faults.counting import SLOW, steps_of, wait_for
from tests.graph import PATIENCE, Graph

pytestmark = pytest.mark.timeout(2 * PATIENCE + 60)

JOBS = 24
BLOWS = (Blow("denoiser"), Blow("dispatcher"), Blow("refiner"), Blow("ingress"))


def replicas_of(stage: str) -> set[int]:
    return set(pids_of(stage))


def test_jobs_survive_the_death_of_what_works_on_them(graph: Graph) -> None:
    with receiving() as receiver:
        with beaten(BLOWS, every_seconds=3) as hits:
            ids = submit(graph, JOBS, webhook=receiver.url)
        videos = await_all(graph, ids, patience=PATIENCE)
        assert len(hits) == len(BLOWS), hits
        assert {video["status"] for video in videos.values()} == {"completed"} and len(set(ids)) == JOBS, videos
        announced: Counter[str] = Counter()
        events: set[str] = set()
        while len(announced) < JOBS:
            headers, payload = receiver.next(timeout=60)
            if headers["webhook-id"] not in events:  # a delivery may come twice, an event is one
                events.add(headers["webhook-id"])
                announced[httpx.Response(200, content=payload).json()["data"]["id"]] += 1
        assert set(announced) == set(ids) and set(announced.values()) == {1}


def test_a_job_killed_in_refinement_does_not_denoise_again(graph: Graph) -> None:
    with graph.client() as client:
        body = {"prompt": "a red ball", "num_frames": 33, "size": "256x256", "num_inference_steps": 6, "seed": time.time_ns() % 10**6}
        video_id = client.post("/v1/videos", json=body).json()["id"]
        wait_for(client, video_id, stage="refiner", done=0)
        denoised = steps_of("denoiser")
        assert strike(Blow("refiner"))
        (video,) = await_all(graph, [video_id], patience=PATIENCE).values()
    assert video["status"] == "completed", video
    lines = Counter(line["step"] for line in video["stages"])
    assert lines["draft"] == lines["refined"] == 1 and steps_of("denoiser") == denoised


def test_a_job_whose_dispatcher_dies_goes_on_where_it_was(graph: Graph) -> None:
    with graph.client() as client:
        body = {"prompt": "a red ball", "num_frames": 33, "size": "256x256", "num_inference_steps": 6, "seed": time.time_ns() % 10**6}
        video_id = client.post("/v1/videos", json=body).json()["id"]
        wait_for(client, video_id, stage="refiner", done=0)
        denoised = steps_of("denoiser")
        assert strike(Blow("dispatcher"))
        (video,) = await_all(graph, [video_id], patience=PATIENCE).values()
    assert video["status"] == "completed" and steps_of("denoiser") == denoised, video
    attempts = {line["step"]: line["attempt"] for line in video["stages"]}
    assert attempts["draft"] == 1 and attempts["video"] == 2


def test_a_cancelled_job_takes_at_most_one_further_step_and_its_replica_takes_the_next(graph: Graph) -> None:
    with graph.client() as client:
        before, known = replicas_of("denoiser"), steps_of("denoiser")
        jobs = [client.post("/v1/videos", json=SLOW).json()["id"] for _ in range(2)]  # one for each denoiser
        for video_id in jobs:
            wait_for(client, video_id, stage="denoiser", done=0)
        small = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2}
        waiting = client.post("/v1/videos", json=small).json()["id"]
        told = sum(client.get(f"/v1/videos/{video_id}").json()["current"]["done"] for video_id in jobs)
        for video_id in jobs:
            assert client.post(f"/v1/videos/{video_id}/cancel").json()["status"] == "cancelled"
        (video,) = await_all(graph, [waiting], patience=PATIENCE).values()
        assert video["status"] == "completed"
        # The steps that the two had told of, for each at most one that had ended untold and the one under way; then the small job's two.
        assert steps_of("denoiser") - known <= told + 2 * len(jobs) + 2
    assert replicas_of("denoiser") == before


def test_a_client_that_hangs_up_cancels_its_job(graph: Graph) -> None:
    with graph.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/videos/sync", json=SLOW, timeout=3)
        (newest,) = client.get("/v1/videos", params={"limit": 1}).json()["data"]
        (video,) = await_all(graph, [newest["id"]], patience=60).values()
        assert video["status"] == "cancelled"
