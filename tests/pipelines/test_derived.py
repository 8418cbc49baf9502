"""A finished video is carried on, or made anew with other words: its settings stay, and where it is carried on its frames do."""

from collections import Counter
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from aiprod_components.calls import DecodeVideo, Denoise, EncodeTail
from aiprod_components.errors import InvalidMediaError, InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, Silent
from aiprod_components.pipelines import parse_request, pipelines_of
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.derived import extend_request, remix_request
from aiprod_components.plan import Plan, Ref, fill, identify
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.values import Footage, Picture
from tests.bodies import footage

FAMILY = make_family("miniature")
PROMPT = "a big red ball moves right slowly on a black background"
NEXT = "a big blue ball moves left slowly on a black background"
NEEDED: dict[str, dict[str, Any]] = {
    "ic_lora": {"reference_video": {"footage": Footage(footage(num_frames=97))}},
    "retake": {"reference_video": {"footage": Footage(footage(128, 128, num_frames=97))}, "from_seconds": 0.25, "to_seconds": 0.5},
    "keyframe_interpolation": {"keyframes": [{"picture": Picture(b"a"), "frame": 8}, {"picture": Picture(b"b"), "frame": 12}]},
}


def request_of(pipeline: str = "distilled", **fields: Any) -> VideoRequest:
    return parse_request({"pipeline": pipeline, "prompt": PROMPT, "seed": 5, **NEEDED.get(pipeline, {}), **fields}, family=FAMILY)


def carried_on(request: VideoRequest, *, frames: int = 24, prompt: str = NEXT) -> VideoRequest:
    return extend_request(request, prompt=prompt, num_frames=frames, family=FAMILY)


def identities(request: VideoRequest) -> dict[str, str]:
    return identify(request.plan(FAMILY), fingerprint="weights")


def calls_of(plan: Plan) -> dict[str, Any]:
    return {step.name: step.call for step in plan.steps}


@pytest.mark.parametrize("length", [9, 13, 33, 37, 57], ids=lambda length: f"{length} frames")
@pytest.mark.parametrize("pipeline", pipelines_of(FAMILY))
def test_what_is_carried_on_keeps_every_step_but_the_last(pipeline: str, length: int):
    fields = {"keyframes": [{"picture": Picture(b"a"), "frame": 8}]} if pipeline == "keyframe_interpolation" else {}
    source = request_of(pipeline, num_frames=length, **fields)
    longer = carried_on(source)
    before, after = identities(source), identities(longer)
    assert {name: after[name] for name in before if name != "video"} == {name: known for name, known in before.items() if name != "video"}
    assert after["video"] != before["video"] and longer.num_frames == length + 24


@pytest.mark.parametrize(
    "fields", [{"double_frame_rate": True}, {"image": {"picture": Picture(b"p")}}, {"next_prompts": ["a star"]}], ids=str
)
def test_whatever_was_asked_of_the_first_part_is_kept(fields: dict[str, Any]):
    source = request_of("ti2vid_two_stages", num_frames=57, guidance_scale=2.5, **fields)
    before, after = identities(source), identities(carried_on(source))
    assert all(after[name] == known for name, known in before.items() if name != "video")


def test_the_new_part_shows_the_new_prompt_and_the_first_the_old_ones():
    source = request_of(num_frames=57, next_prompts=["a star"])
    calls = calls_of(carried_on(source, frames=48).plan(FAMILY))
    prompts = [calls[calls[f"draft{suffix}"].prompt_embeds.step].prompt for suffix in ("", "_2", "_3", "_4")]
    assert prompts == [PROMPT, "a star", NEXT, NEXT]


def test_the_first_new_chunk_begins_with_the_end_of_the_last_old_one_however_short_that_is():
    source = request_of(num_frames=41)  # chunks of 33 and 17 frames
    calls = calls_of(carried_on(source, frames=48).plan(FAMILY))
    assert [calls[name].video.num_frames for name in ("draft", "draft_2", "draft_3", "draft_4")] == [33, 17, 33, 33]
    assert calls["draft_tail_3"] == EncodeTail(Ref("draft_2"), calls["draft_2"].video, 3)
    assert calls["refined_tail_3"] == EncodeTail(Ref("refined_2"), calls["refined_2"].video, 3)
    assert calls["draft_tail_4"].video == calls["draft_3"].video
    video = cast(DecodeVideo, calls["video"])
    assert (len(video.clips), video.video.num_frames, video.overlap) == (4, 89, 9)


def test_an_extension_can_be_carried_on_like_any_video():
    source = request_of(num_frames=17)
    twice = carried_on(carried_on(source), frames=50, prompt="a star")
    assert (twice.num_frames, twice.extends) == (17 + 24 + 48, (17, 41))
    before, after = identities(carried_on(source)), identities(twice)
    assert all(after[name] == known for name, known in before.items() if name != "video")
    assert [chunk.num_frames for chunk in drafts(twice)] == [17, 33, 33, 33]


def drafts(request: VideoRequest) -> list[Any]:
    return [call.video for call in calls_of(request.plan(FAMILY)).values() if isinstance(call, Denoise)]


def test_a_video_that_was_carried_on_is_another_than_one_that_was_asked_for_at_once():
    longer, at_once = carried_on(request_of(num_frames=17)), request_of(num_frames=41, next_prompts=[NEXT])
    assert identities(longer)["draft"] != identities(at_once)["draft"]


@pytest.mark.parametrize(("asked", "added"), [(4, 4), (7, 4), (27, 24), (208, 208)])
def test_what_is_added_is_rounded_down_to_the_family_s_grid(asked: int, added: int):
    longer = carried_on(request_of(), frames=asked)
    longer.plan(FAMILY)
    assert longer.num_frames == 33 + added


@pytest.mark.parametrize(
    ("fields", "frames", "field", "message"),
    [
        ({}, 3, "num_frames", "must be 4 to 208 more for a video of 33 frames, got 3"),
        ({}, 0, "num_frames", "must be 4 to 208 more"),
        ({}, -8, "num_frames", "must be 4 to 208 more"),
        ({}, 212, "num_frames", "must be 4 to 208 more for a video of 33 frames, got 212"),
        ({"num_frames": 241}, 4, "num_frames", "as long as miniature makes one"),
        ({"num_frames": 1}, 24, "extends", "from the last 9 frames of the one that it carries on, which has only 1"),
        ({"num_frames": 5}, 24, "extends", "carry on one of 9 frames or more"),
    ],
)
def test_what_cannot_be_added_is_refused_with_the_way_out(fields: dict[str, Any], frames: int, field: str, message: str):
    with pytest.raises(InvalidRequestError) as caught:
        carried_on(request_of(**fields), frames=frames).plan(FAMILY)
    assert caught.value.field == field and message in caught.value.message


@pytest.mark.parametrize("derive", [carried_on, remix_request])
@pytest.mark.parametrize("prompt", ["", " \n"])
def test_a_prompt_that_is_none_is_refused_as_such(derive: Any, prompt: str):
    with pytest.raises(InvalidRequestError) as caught:
        derive(request_of(), prompt=prompt)
    assert caught.value.field == "prompt"


def test_a_prompt_that_is_too_long_is_refused_as_such():
    with pytest.raises(InvalidRequestError, match="prompt must be at most 500 bytes"):
        carried_on(request_of(), prompt="x" * 501)


@pytest.mark.parametrize("extends", [[30], [33, 33], [37, 33], [65], [69], [-3]], ids=str)
def test_lengths_that_no_videos_can_have_had_are_refused(extends: list[int]):
    with pytest.raises(InvalidRequestError) as caught:
        request_of(num_frames=65, extends=extends).plan(FAMILY)
    assert caught.value.field == "extends"


def test_a_reference_that_ends_too_early_for_more_is_named():
    source = request_of("ic_lora", reference_video={"footage": Footage(footage(num_frames=33))})
    with pytest.raises(InvalidMediaError, match=r"reference_video must last 3\.56 s .* send a longer video"):
        carried_on(source).plan(FAMILY)


class Frames:
    """Runs plans, each step of an identity once, and keeps the raw frames of their videos."""

    def __init__(self) -> None:
        self._stages = LocalStages(FAMILY, device=torch.device("cpu"))
        self._known: dict[str, Any] = {}
        self.run = Counter[str]()

    def of(self, request: VideoRequest) -> Tensor:
        plan = request.plan(FAMILY)
        known, results = identify(plan, fingerprint="weights"), dict[str, Any]()
        for step in plan.steps[:-1]:
            if known[step.name] not in self._known:
                self.run[step.name] += 1
                self._known[known[step.name]] = self._stages[step.call.stage].run(fill(step.call, results), Silent())
            results[step.name] = self._known[known[step.name]]
        decoder, last = self._stages["vae_decoder"], fill(plan.steps[-1].call, results)
        assert isinstance(decoder, VAEDecoder) and isinstance(last, DecodeVideo)
        with torch.inference_mode():
            return torch.cat(list(decoder._frames(last, Silent())), dim=1)[0]


@pytest.mark.parametrize("double", [False, True], ids=["at its rate", "at twice its rate"])
def test_the_frames_that_were_there_stay_to_the_last_byte_and_the_new_ones_go_on_from_them(double: bool):
    frames, source = Frames(), request_of(num_frames=17, height=64, width=64, double_frame_rate=double)
    short, long = frames.of(source), frames.of(carried_on(source, frames=16, prompt=PROMPT))
    kept = 33 if double else 17
    assert (len(short), len(long)) == (kept, kept + (32 if double else 16))
    assert torch.equal(long[:kept], short)
    assert set(frames.run.values()) == {1} and {"draft", "draft_2"} <= frames.run.keys()
    steps = (long[1:].float() - long[:-1].float()).abs().mean(dim=(1, 2, 3))
    elsewhere = torch.cat([steps[: kept - 1], steps[kept:]])
    assert 0 < steps[kept - 1] <= 1.5 * elsewhere.max()


def test_a_remix_is_the_same_but_for_its_words():
    source = request_of("ti2vid_two_stages", num_frames=57, next_prompts=["a star"], image={"picture": Picture(b"p")}, guidance_scale=2)
    remixed = remix_request(source, prompt=NEXT)
    assert (remixed.prompt, remixed.next_prompts) == (NEXT, ())
    assert {**dict(remixed), "prompt": PROMPT, "next_prompts": ("a star",)} == dict(source)
    before, after = calls_of(source.plan(FAMILY)), calls_of(remixed.plan(FAMILY))
    assert before["draft"] == after["draft"] and before["prompt"] != after["prompt"]
