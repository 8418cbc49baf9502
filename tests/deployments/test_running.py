"""what stages say of a job's steps -> how far it is, where it is, and what its row tells of them"""

from pathlib import Path
from typing import Any

import pytest

from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.storage import dump_request
from deployments.assigning import Assigner
from deployments.envelope import Receipt
from deployments.jobs.records import Job, NewJob
from deployments.orders import Report, merge_stages, receipt_record
from deployments.running import JobRun
from deployments.settings import ApiArgs
from deployments.storage import Storage, open_storage

FAMILY = make_family("miniature")
RECORD = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 4, "seed": 3}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(args_in(tmp_path))


def args_in(folder: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(folder)})


@pytest.fixture
def run(storage: Storage, tmp_path: Path) -> JobRun:
    record, _ = dump_request(parse_request(RECORD, family=FAMILY))
    storage.jobs.create(NewJob("video_" + "1" * 32, "a", "miniature", "ti2vid_two_stages", record, {}, 1.0, 0))
    job = storage.jobs.claim("tester", 60, ["miniature"])
    assert isinstance(job, Job)
    return JobRun(Assigner(args_in(tmp_path), {"miniature": FAMILY}, storage).assign(job, "f"), storage, {})


def say(run: JobRun, step: str, **what: Any) -> None:
    (of,) = [s for s in run.assignment.plan.steps if s.name == step]
    order = run.assignment.order(of)
    assert order.job is not None
    run.note(Report(order.job, step, of.call.stage, **what))


def end(run: JobRun, step: str) -> None:
    (stage,) = [s.call.stage for s in run.assignment.plan.steps if s.name == step]
    say(run, step, receipt=Receipt(step, stage, "a", 0.0, 1.0))


def test_percent_moves_with_the_steps_of_the_work_and_never_falls(run: JobRun) -> None:
    seen: list[int] = []

    def note(step: str, **what: Any) -> None:
        say(run, step, **what)
        seen.append(run.progress["percent"])

    note("prompt")
    end(run, "prompt")
    for done in (0, 1, 2, 3, 4):
        note("draft", done=done, total=4)
    end(run, "draft")
    note("draft", done=1, total=4)  # overtaken by the step's end
    note("refined", done=1, total=3)
    assert seen == sorted(seen) and 0 < seen[2] < seen[3] < seen[5] < 99 and run.progress["step"] == "refined"
    for step in ("doubled", "refined", "video"):
        end(run, step)
    assert run.progress["percent"] == 99  # 100 is for a finished job


def test_a_job_is_where_its_stages_are(run: JobRun) -> None:
    assert run.at_work() == ([], ["text_encoder"])
    say(run, "prompt")
    assert run.at_work() == (["text_encoder"], [])
    end(run, "prompt")
    assert run.at_work() == ([], ["denoiser"])
    say(run, "draft", done=1, total=4)
    assert run.at_work() == (["denoiser"], [])


def test_each_order_says_whose_it_is_and_only_the_last_is_published(run: JobRun) -> None:
    orders = [run.assignment.order(step) for step in run.assignment.plan.steps]
    assert {order.job.claim.id for order in orders if order.job} == {"video_" + "1" * 32}
    published = [order.step for order in orders if order.job and order.job.publish]
    assert published == ["video"]
    assert len({order.job.location for order in orders if order.job}) == len(orders)


def test_a_step_that_is_made_again_is_told_again_and_one_found_again_is_not() -> None:
    first = receipt_record(Receipt("draft", "denoiser", "a", 0.0, 1.0), attempt=1)
    again = receipt_record(Receipt("draft", "denoiser", "b", 0.0, 1.5), attempt=2)
    found = receipt_record(Receipt("draft", "denoiser", "", 0.0, 0.0), attempt=2, cache_hit=True)
    assert merge_stages([first], [first, found]) == [first]
    assert merge_stages([first], [again]) == [first, again]
    assert merge_stages([], [found]) == [found]
