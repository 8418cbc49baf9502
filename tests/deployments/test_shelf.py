"""a step's result -> the shelf -> the same result for another job"""

from concurrent.futures import Future
from pathlib import Path

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
