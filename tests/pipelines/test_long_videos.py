"""Videos longer than a family was trained on, with the shipped weights: no jump where chunks join, and a frame between each two."""

import pytest
import torch

from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, run_plan
from aiprod_components.media.decode import decode_video
from aiprod_components.pipelines import parse_request

FAMILY = make_family("miniature")
STAGES = LocalStages(FAMILY, device=torch.device("cpu"))
JOINS = (33, 57)  # the first frames that the second and the third chunk show


def frames_of(**record: object) -> torch.Tensor:
    plan = parse_request({"pipeline": "distilled", "seed": 5, **record}, family=FAMILY).plan(FAMILY)
    return decode_video(run_plan(plan, stages=STAGES).data).float()


@pytest.mark.parametrize(
    "prompt", ["a big red ball bounces quickly on a black background", "a small white star spins slowly on a navy background"]
)
def test_three_chunks_move_on_as_one(prompt: str):
    frames = frames_of(prompt=prompt, num_frames=81)
    steps = (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))
    at_joins = [steps[join - 1].item() for join in JOINS]
    elsewhere = torch.tensor([step for index, step in enumerate(steps.tolist()) if index + 1 not in JOINS])
    assert len(frames) == 81 and elsewhere.max() > 0
    assert max(at_joins) <= 1.1 * elsewhere.max()


def test_frames_between_frames_leave_the_others_as_they_were():
    record = {"prompt": "a big red ball moves right slowly on a black background"}
    plain, doubled = frames_of(**record), frames_of(**record, double_frame_rate=True)
    assert (len(plain), len(doubled)) == (33, 65)
    error = (doubled[::2] - plain).square().mean()
    other = (doubled[2::2] - plain[:-1]).square().mean()  # a frame too late
    assert 0 < error < other / 2
