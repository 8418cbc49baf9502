"""a thousand jobs of one tenant wait -> a newcomer's first job, made beside them"""

from typing import Any

import pytest

from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.storage import dump_request
from deployments.jobs.records import COMPLETED, NewJob
from deployments.settings import ApiArgs
from deployments.storage import Storage, open_storage
from tests.faults.chaos import await_all
from tests.graph import CONFIG, PATIENCE, Graph, deployment_of, graph_config

pytestmark = pytest.mark.timeout(2 * PATIENCE)

HOARDED = 1000
RECORD: dict[str, Any] = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2}


def hoard(storage: Storage) -> list[str]:
    """A tenant's thousand jobs, as if it had a key and asked for them."""
    family = make_family("miniature")
    ids = [f"video_{number:032x}" for number in range(HOARDED)]
    for number, video_id in enumerate(ids):
        record, _ = dump_request(parse_request({**RECORD, "seed": number}, family=family))
        storage.jobs.create(NewJob(video_id, "hoarder", "miniature", "ti2vid_two_stages", record, {"num_frames": 5}, 0.3, 0))
    return ids


def test_a_newcomer_waits_for_no_more_than_is_under_way(graph: Graph) -> None:
    assert CONFIG.is_file()
    slots = deployment_of(graph_config(), "dispatcher")["user_config"]["slots"]
    storage = open_storage(ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(graph.data)}))
    hoarded = hoard(storage)
    try:
        with graph.client() as client:
            body = {"prompt": "a blue ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2}
            video_id = client.post("/v1/videos", json=body).json()["id"]
            (video,) = await_all(graph, [video_id], patience=PATIENCE).values()
        assert video["status"] == "completed"
        newcomer = storage.jobs.get(video_id)
        assert newcomer is not None and newcomer.completed_at is not None
        jobs = [job for job in map(storage.jobs.get, hoarded) if job is not None and job.status == COMPLETED]
        between = [job for job in jobs if job.completed_at and newcomer.created_at < job.completed_at < newcomer.completed_at]
        # Those under way when it came, and the one that was claimed in turn with it.
        assert len(between) <= slots + 1, f"{len(between)} of the hoarder's jobs were finished before the newcomer's"
    finally:
        for hoarded_id in hoarded:
            storage.jobs.delete("hoarder", hoarded_id)
