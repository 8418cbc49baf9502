"""one plan in this process and through Serve's local testing mode -> the same frames"""

from ray import serve

from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, best_device, run_plan
from aiprod_components.pipelines import parse_request
from deployments.graph import family
from deployments.settings import FamilyArgs


def test_local_testing_mode_makes_the_frames_that_this_process_makes() -> None:
    miniature = make_family("miniature")
    record = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2, "seed": 3}
    plan = parse_request(record, family=miniature).plan(miniature)
    expected = run_plan(plan, stages=LocalStages(miniature, device=best_device()))

    handle = serve.run(family(FamilyArgs(name="miniature")), name="local", _local_testing_mode=True)
    sealed = handle.run.remote(plan).result()

    assert sealed.open().frames_digest == expected.frames_digest
    assert [receipt.step for receipt in sealed.receipts] == [step.name for step in plan.steps]
