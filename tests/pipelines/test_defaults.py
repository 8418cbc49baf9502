"""What was not said is filled in so that it goes with what was; what is refused can be mended as the refusal says."""

from dataclasses import replace
from typing import Any, cast

import pytest

from aiprod_components.calls import DecodeAudio, Denoise, Guidance
from aiprod_components.errors import AiprodError
from aiprod_components.families.base import Family
from aiprod_components.families.ltx2 import unserved_ltx2
from aiprod_components.pipelines import parse_request
from aiprod_components.values import Sound
from tests.pipelines.test_plans import NEEDED, SOUNDING, calls_of, plan_of

LTX2 = unserved_ltx2("2.3", "dev")
GUIDANCE = Guidance(3.0, 0.7, modality_scale=3.0)
WITHOUT_SKIPPING = replace(
    LTX2, attention_blocks=0, sampling=replace(LTX2.sampling, guidance=GUIDANCE, audio_guidance=replace(GUIDANCE, scale=7.0))
)
SMALL: dict[str, Any] = {"prompt": "rain on a roof", "pipeline": "ti2vid_one_stage", "height": 64, "width": 64, "seed": 5}


def sampling_of(family: Family, **fields: Any) -> Any:
    plan = parse_request({**SMALL, "num_frames": 9, **fields}, family=family).plan(family)
    return calls_of(plan)["draft"].sampling


def refusal(family: Family, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(AiprodError) as caught:
        parse_request({**SMALL, **fields}, family=family).plan(family)
    return caught.value.message, caught.value.field


def test_without_skip_guidance_the_sound_skips_nothing_by_itself() -> None:
    assert sampling_of(LTX2).audio_guidance.stg_scale == 1
    sampling = sampling_of(LTX2, skip_guidance=None)
    assert sampling.guidance == GUIDANCE and sampling.audio_guidance == replace(GUIDANCE, scale=7.0)
    message, field = refusal(LTX2, skip_guidance=None, audio_guidance={"scale": 7, "skip_scale": 1})
    assert field == "audio_guidance" and "skip_scale needs the blocks that skip_guidance names" in message


def test_guidance_between_pictures_and_sound_is_guidance() -> None:
    sampling = sampling_of(WITHOUT_SKIPPING, guidance_scale=1)
    assert sampling.guidance == Guidance(1.0, 0.7, modality_scale=3.0), "which is rescaled as any other"
    said = {"guidance_scale": 1, "guidance_rescale": 0.3, "guidance_interval": (0.2, 0.8)}
    assert sampling_of(WITHOUT_SKIPPING, **said).guidance.rescale == 0.3
    unguided = sampling_of(WITHOUT_SKIPPING, guidance_scale="1", modality_guidance_scale=1)
    assert unguided.guidance == Guidance(), "the family's rescaling yields"
    message, field = refusal(WITHOUT_SKIPPING, **said, modality_guidance_scale=1)
    assert field == "guidance_rescale" and "leave guidance_rescale out" in message
    del said["guidance_rescale"]
    assert sampling_of(WITHOUT_SKIPPING, **said, modality_guidance_scale=1).audio_guidance.interval == (0.2, 0.8)


@pytest.mark.parametrize("pipeline", ["retake", "audio_to_video"])
@pytest.mark.parametrize(
    "frame_rate", [float("inf"), 10**400, 1e-300, 0, "soon", None], ids=["endless", "huge", "tiny", "0", "words", "none"]
)
def test_a_frame_rate_that_is_none_is_refused_by_its_name(pipeline: str, frame_rate: object) -> None:
    with pytest.raises(AiprodError) as caught:
        plan_of(SOUNDING, pipeline=pipeline, frame_rate=frame_rate, **NEEDED[pipeline])
    assert caught.value.field == "frame_rate"


@pytest.mark.parametrize("pipeline", ["retake", "audio_to_video"])
def test_a_frame_rate_in_quotes_counts_as_much_as_one_without(pipeline: str) -> None:
    quoted, plain = (plan_of(SOUNDING, pipeline=pipeline, frame_rate=rate, **NEEDED[pipeline]) for rate in ("8", 8))
    assert calls_of(quoted)["draft"].video == calls_of(plain)["draft"].video


def test_a_sound_too_short_for_a_video_is_refused_with_a_length_that_can_be_made() -> None:
    sound = {"pipeline": "audio_to_video", "sound": {"sound": Sound(b"a sound", 0.2)}}
    message, field = refusal(LTX2, **sound)
    assert field == "sound"
    assert message == (
        "sound must last 0.38 s for num_frames 9 at frame_rate 24, got 0.20 s; ask for num_frames at most 1, or send a longer sound"
    )
    message, _ = refusal(LTX2, **sound, frame_rate=60, num_frames=25)
    assert "num_frames at most 9" in message, "of 1 + multiples of 8"
    assert parse_request({**SMALL, **sound, "num_frames": 1}, family=LTX2).plan(LTX2).steps


@pytest.mark.parametrize("family", [SOUNDING, LTX2], ids=["miniature", "ltx2"])
def test_one_frame_has_sound_at_any_rate(family: Family) -> None:
    video = parse_request({"prompt": "rain", "num_frames": 1, "frame_rate": 120}, family=family).video
    assert family.grid.audio_tokens_of(video) == 1
    assert replace(family.grid, audio_rate=0.0).audio_tokens_of(video) == 0


@pytest.mark.parametrize(("frame_rate", "num_frames", "chunks"), [(24, 1201, 3), (24, 481, 1), (24, 489, 2), (60, 1201, 1), (1, 57, 5)])
def test_a_video_of_up_to_a_minute_is_chunks_of_a_third_of_one_at_most(frame_rate: int, num_frames: int, chunks: int) -> None:
    plan = parse_request({**SMALL, "frame_rate": frame_rate, "num_frames": num_frames}, family=LTX2).plan(LTX2)
    drafts = [call for call in calls_of(plan).values() if isinstance(call, Denoise)]
    assert len(drafts) == chunks
    assert all(draft.video.num_frames <= max(20.1 * frame_rate, 25) for draft in drafts)
    overlap = LTX2.grid.frames_in(LTX2.chaining.overlap)
    assert sum(draft.video.num_frames - overlap for draft in drafts) + overlap == num_frames


def test_where_chunks_meet_sound_is_heard_once() -> None:
    request = parse_request({**SMALL, "num_frames": 1201}, family=LTX2)
    calls = calls_of(request.plan(LTX2))
    drafts, sound = [calls[name] for name in ("draft", "draft_2", "draft_3")], cast(DecodeAudio, calls["sound"])
    lengths = [LTX2.grid.audio_tokens_of(draft.video) for draft in drafts]
    assert sound.heard[0] == 0 and all(17 <= heard <= 18 for heard in sound.heard[1:]), "of 17 frames"
    assert sum(lengths) - sum(sound.heard) == LTX2.grid.audio_tokens_of(request.video) == 1251
    for before, draft, heard in zip(lengths, drafts[1:], sound.heard[1:], strict=False):
        (pin,) = draft.sound_pins
        assert (pin.at, pin.part) == (0, (before - heard, before))


def test_a_sound_alone_is_one_chunk() -> None:
    asked = {"prompt": "rain", "pipeline": "text_to_audio", "num_frames": 482}
    assert parse_request(asked, family=LTX2).plan(LTX2).steps
    with pytest.raises(AiprodError, match=r"0.04 s at least and 20.1 s at most, got 483 at frame_rate 24; ask for fewer frames"):
        parse_request({**asked, "num_frames": 483}, family=LTX2).plan(LTX2)
