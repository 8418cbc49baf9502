"""what has run out is taken away: finished videos, their steps, and steps that nobody used lately"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.storage import dump_request
from deployments import upkeep as module
from deployments.artifacts import file_key, step_key
from deployments.assigning import Assigner
from deployments.jobs.records import Claim, Job, NewJob
from deployments.jobs.tables import ended_jobs
from deployments.settings import ApiArgs
from deployments.storage import Storage, open_storage
from deployments.telemetry.account import Account
from deployments.upkeep import Upkeep

FAMILY = make_family("miniature")
RECORD = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}


@pytest.fixture
def args(tmp_path: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path), "cache": {"max_bytes": 100}})


@pytest.fixture
def storage(args: ApiArgs) -> Storage:
    return open_storage(args)


@pytest.fixture
def assigner(args: ApiArgs, storage: Storage) -> Assigner:
    return Assigner(args, {"miniature": FAMILY}, storage)


def finished(storage: Storage, assigner: Assigner, *, number: int, retention: float) -> tuple[Job, dict[str, str]]:
    """A finished job with its files and kept steps; the steps' places by name."""
    record, _ = dump_request(parse_request({**RECORD, "seed": number}, family=FAMILY))
    storage.jobs.create(NewJob(f"video_{number:032x}", "a", "miniature", "ti2vid_two_stages", record, {}, 1.0, 0))
    job = storage.jobs.claim("tester", 60, ["miniature"])
    assert job is not None and storage.jobs.pin(Claim.of(job), "f")
    assignment = assigner.assign(job, "f")
    places = {name: step_key(assignment.scopes[name], identity) for name, identity in assignment.identities.items()}
    for name, place in places.items():
        storage.artifacts.put(place, b"x" * 50)
        storage.kept.record(assignment.scopes[name], assignment.identities[name], place, 50, {})
    storage.artifacts.put(file_key(assignment.prefix, "video"), b"mp4")
    output: dict[str, Any] = {"prefix": assignment.prefix, "files": {"video": ["video/mp4", 3]}, "frames_digest": "0"}
    assert storage.jobs.finish(Claim.of(job), output, [], retention)
    found = storage.jobs.get(job.id)
    assert found is not None
    return found, places


def test_a_video_whose_time_has_run_out_is_gone_with_all_its_files(args: ApiArgs, storage: Storage, assigner: Assigner) -> None:
    old, old_steps = finished(storage, assigner, number=1, retention=-1)
    new, new_steps = finished(storage, assigner, number=2, retention=3600)
    asyncio.run(Upkeep(args, assigner, Account("one")).sweep())
    assert storage.jobs.get(old.id) is None and storage.jobs.get(new.id) is not None
    assert storage.artifacts.stat(f"videos/{old.id}/1/video") is None and storage.artifacts.stat(f"videos/{new.id}/1/video")
    shared = old_steps.keys() & {name for name, place in new_steps.items() if old_steps[name] == place}
    assert shared == {"prompt"}  # which the other video's owner makes again
    assert all(storage.artifacts.stat(place) is None for place in old_steps.values())


def test_steps_beyond_the_bound_go_the_longest_unused_first(
    args: ApiArgs, storage: Storage, assigner: Assigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = finished(storage, assigner, number=1, retention=3600)
    _, second = finished(storage, assigner, number=2, retention=3600)
    asyncio.run(Upkeep(args, assigner, Account("one")).sweep())
    assert all(storage.artifacts.stat(place) for place in (*first.values(), *second.values())), "used a moment ago"
    monkeypatch.setattr(module, "IN_USE_SECONDS", -1.0)
    asyncio.run(Upkeep(args, assigner, Account("one")).sweep())
    left = [place for place in {*first.values(), *second.values()} if storage.artifacts.stat(place)]
    assert len(left) == 2 and set(left) <= set(second.values())  # 100 bytes


def test_a_step_that_no_row_names_goes_when_that_was_seen_twice(
    args: ApiArgs, storage: Storage, assigner: Assigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    _, named = finished(storage, assigner, number=1, retention=3600)
    lost, late = "steps/tenant-a/lost", "steps/shared/late"
    upkeep = Upkeep(args, assigner, Account("one"))
    storage.artifacts.put(lost, b"x")
    storage.artifacts.put(late, b"x")
    asyncio.run(upkeep.clear())
    assert storage.artifacts.stat(lost), "its report may be on its way"
    storage.kept.record("shared", "late", late, 1, {})
    asyncio.run(upkeep.clear())
    assert storage.artifacts.stat(lost) is None
    assert all(storage.artifacts.stat(place) for place in (late, *named.values())) and len(named) > 2


def test_a_server_that_has_kept_nothing_has_nothing_to_clear(args: ApiArgs, storage: Storage, assigner: Assigner) -> None:
    asyncio.run(Upkeep(args, assigner, Account("one")).clear())
    assert storage.artifacts.keys_under("steps") == storage.artifacts.folders("videos") == []


def test_a_removed_video_forgets_what_its_owner_alone_could_use(storage: Storage, assigner: Assigner) -> None:
    job, places = finished(storage, assigner, number=1, retention=3600)
    assigner.remove(job)
    assert all(storage.artifacts.stat(place) is None for place in places.values())
    identities = assigner.assign(job, "f").identities
    assert storage.kept.find(assigner.assign(job, "f").scopes["video"], list(identities.values())) == {}


def test_shared_results_stay_when_one_of_their_users_goes(tmp_path: Path) -> None:
    shared = {"families": [{"name": "miniature"}], "data": str(tmp_path), "cache": {"share_prompts": True}}
    args = ApiArgs.model_validate(shared)
    storage = open_storage(args)
    assigner = Assigner(args, {"miniature": FAMILY}, storage)
    job, places = finished(storage, assigner, number=1, retention=3600)
    assigner.remove(job)
    assert all(storage.artifacts.stat(place) for place in places.values()) and storage.artifacts.stat(f"videos/{job.id}/1/video") is None


def test_what_ended_too_long_ago_to_be_looked_back_on_is_forgotten(args: ApiArgs, storage: Storage, assigner: Assigner) -> None:
    for number, days in enumerate((0, 399, 400)):
        job, _ = finished(storage, assigner, number=number, retention=3600)
        with storage.ended._database.write() as connection:
            connection.execute(update(ended_jobs).where(ended_jobs.c.id == job.id).values(day=ended_jobs.c.day - days))
    asyncio.run(Upkeep(args, assigner, Account("one")).sweep())
    assert sum(day.completed for day in storage.ended.analyse(1000).days) == 2
