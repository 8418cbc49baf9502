"""a step's result -> the shelf -> the same result for another job"""

import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from deployments import shelf as module
from deployments.envelope import Receipt, Sealed
from deployments.jobs.records import Claim
from deployments.keeping import KeptStep
from deployments.orders import ForJob
from deployments.shelf import Shelf


def test_what_another_job_finds_bears_no_receipts_whether_from_memory_or_from_the_store(tmp_path: Path) -> None:
    made, asking = (ForJob(Claim(f"video_{name}", 1, "owner"), f"file://{tmp_path}", "f", "identity", "tenant") for name in "ab")
    shelf, written = Shelf(), Future[int]()
    receipt = Receipt("enhanced", "prompt_enhancer", "a replica", 1.0, 9.9)
    shelf.keep(Sealed.of("an enhanced prompt", receipts=(receipt,)), made, then=written.set_result)
    assert written.result(timeout=60) > 0
    for place in (shelf, Shelf()):
        found = place.fetch(KeptStep(made.location, "identity"), asking)
        assert (found.open(), found.receipts) == ("an enhanced prompt", ())


def test_a_step_is_told_of_when_its_file_is_whole_in_the_store(tmp_path: Path) -> None:
    job = ForJob(Claim("video_a", 1, "owner"), f"file://{tmp_path}", "f", "identity", "tenant")
    shelf, told = Shelf(), Future[tuple[int, int]]()
    shelf.keep(Sealed.of("a prompt", receipts=()), job, then=lambda size: told.set_result((size, (tmp_path / job.location).stat().st_size)))
    said, found = told.result(timeout=60)
    assert said == found > 0


def test_a_result_is_handed_on_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, write = Future[float](), module.to_bytes
    monkeypatch.setattr(module, "to_bytes", lambda sealed: (begun.set_result(time.monotonic()), write(sealed))[1])
    shelf, job = Shelf(), ForJob(Claim("video_a", 1, "owner"), f"file://{tmp_path}", "f", "identity", "tenant")
    asked = time.monotonic()
    shelf.keep(Sealed.of("a prompt", receipts=()), job, then=lambda size: None)
    assert begun.result(timeout=60) - asked >= module.HAND_OVER_SECONDS
