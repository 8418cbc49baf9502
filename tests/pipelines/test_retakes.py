"""A span of a video is made anew and the rest stays, with the shipped weights; the span's borders are those of latent frames."""

from typing import Any

import pytest
import torch

from aiprod_components.calls import Denoise, EncodeFootage
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, Silent, run_plan
from aiprod_components.media.decode import decode_video
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.derived import extend_request
from aiprod_components.plan import Plan, fill
from aiprod_components.values import Footage, VideoShape
from tests.bodies import footage

FAMILY = make_family("miniature")
STAGES = LocalStages(FAMILY, device=torch.device("cpu"))
PROMPT = "a big red ball moves right slowly on a black background"
CLIP = run_plan(
    parse_request({"pipeline": "distilled", "prompt": PROMPT, "seed": 5, "num_frames": 33}, family=FAMILY).plan(FAMILY), stages=STAGES
).data
SPAN = {"from_seconds": 0.8, "to_seconds": 1.2}  # frames 12 to 19, which are in latent frames 3 to 5, which are frames 9 to 20


def plan_of(video: bytes = CLIP, **fields: Any) -> Plan:
    record = {"pipeline": "retake", "prompt": PROMPT, "seed": 1, "num_inference_steps": 6, "reference_video": {"footage": Footage(video)}}
    return parse_request({**record, **SPAN, **fields}, family=FAMILY).plan(FAMILY)


def calls_of(plan: Plan) -> dict[str, Any]:
    return {step.name: step.call for step in plan.steps}


def made(plan: Plan) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for step in plan.steps:
        results[step.name] = STAGES[step.call.stage].run(fill(step.call, results), Silent())
    return results


def parts(call: Denoise) -> list[tuple[int, tuple[int, int] | None]]:
    return [(pin.frame, pin.part) for pin in call.pins]


def test_a_retake_has_the_size_rate_and_length_of_its_video():
    assert calls_of(plan_of())["draft"].video == VideoShape(33, 128, 128, 16.0)
    assert calls_of(plan_of(footage(96, 64, num_frames=31), to_seconds=0.9))["draft"].video == VideoShape(29, 64, 96, 16.0)
    assert calls_of(plan_of(num_frames=25))["source"] == EncodeFootage(Footage(CLIP), 0, VideoShape(25, 128, 128, 16.0), None)


@pytest.mark.parametrize(
    ("begin", "end", "held"),
    [
        (0.8, 1.2, [(0, (0, 3)), (21, (6, 9))]),
        (0.0, 0.05, [(1, (1, 9))]),
        (0.0, 0.1, [(5, (2, 9))]),
        (1 / 16, 5 / 16, [(0, (0, 1)), (5, (2, 9))]),
        (1 / 16, 5.1 / 16, [(0, (0, 1)), (9, (3, 9))]),
        (2.0, 33 / 16, [(0, (0, 8))]),
        (0.0, 33 / 16, []),
    ],
)
def test_the_span_is_widened_to_whole_latent_frames(begin: float, end: float, held: list[Any]):
    assert parts(calls_of(plan_of(from_seconds=begin, to_seconds=end))["draft"]) == held


def test_what_lies_outside_of_the_span_stays_and_what_lies_inside_follows_prompt_and_seed():
    first = made(plan_of())
    source, draft = first["source"].video, first["draft"].video
    outside = [0, 1, 2, 6, 7, 8]
    assert torch.equal(draft[:, :, outside], source[:, :, outside])
    assert (draft[:, :, 3:6] != source[:, :, 3:6]).float().mean() > 0.99
    for other in (made(plan_of(seed=2)), made(plan_of(prompt="a big blue cube spins quickly on a black background"))):
        assert torch.equal(other["draft"].video[:, :, outside], draft[:, :, outside])
        assert (other["draft"].video[:, :, 3:6] - draft[:, :, 3:6]).abs().mean() > 0.01
    frames, was = decode_video(first["video"].data).float(), decode_video(CLIP).float()
    far = torch.tensor([*range(8), *range(26, 33)])
    assert (frames[far] - was[far]).abs().mean() < 4


def test_what_is_made_anew_joins_what_stays():
    frames = decode_video(made(plan_of(num_inference_steps=15))["video"].data).float()
    steps = (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))
    assert max(steps[8], steps[20]) <= 3 * steps.median() + 1


def test_below_strength_1_what_lies_outside_changes_too_but_little():
    results = made(plan_of(reference_video={"footage": Footage(CLIP), "strength": 0.9}))
    source, draft = results["source"].video[:, :, :3], results["draft"].video[:, :, :3]
    assert 0 < (draft - source).square().mean() < 0.2 * source.square().mean()


def test_a_long_video_is_made_anew_chunk_by_chunk():
    calls = calls_of(plan_of(footage(64, 64, num_frames=65), from_seconds=30 / 16, to_seconds=40 / 16))
    assert [calls[name].start for name in ("source", "source_2", "source_3")] == [0, 24, 48]
    assert parts(calls["draft"]) == [(0, (0, 8))]
    assert parts(calls["draft_2"]) == [(0, None), (0, (0, 2)), (17, (5, 9))]
    assert parts(calls["draft_3"]) == [(0, None), (0, (0, 5))]


def test_an_extension_of_a_retake_carries_on_from_it():
    record = {"pipeline": "retake", "prompt": PROMPT, "seed": 1, "reference_video": {"footage": Footage(CLIP)}, **SPAN}
    longer = extend_request(parse_request(record, family=FAMILY), prompt="a blue ball", num_frames=24, family=FAMILY)
    calls = calls_of(longer.plan(FAMILY))
    assert "source_2" not in calls and parts(calls["draft_2"]) == [(0, None)]
