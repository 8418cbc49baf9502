"""sound that is given: of the video that is carried on, of an upload -> held as it was, heard as it was"""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from aiprod_components.calls import DecodeAudio, Denoise, Refine
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.derived import extend_request
from aiprod_components.values import Video, Waveform
from tests.ltx2.desk import Desk, calls_of, close, sound_of

SMALL: dict[str, Any] = {"prompt": "rain on a roof", "height": 64, "width": 64, "num_frames": 25, "seed": 5}
ONE_STAGE = {**SMALL, "pipeline": "ti2vid_one_stage", "num_inference_steps": 2}


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_an_extension_holds_the_sound_at_the_end_of_what_it_carries_on(version: str, desk: Callable[..., Desk]) -> None:
    here = desk(version)
    source = here.ask(**ONE_STAGE)
    longer = extend_request(source, prompt="thunder", num_frames=24, family=here.family)
    results = here.run(longer.plan(here.family))
    (pin,) = cast(Denoise, calls_of(longer.plan(here.family))["draft_2"]).sound_pins
    before, after = sound_of(results["draft"]), sound_of(results["draft_2"])
    held = pin.part[1] - pin.part[0]
    assert (before.shape[2], pin.part, held) == (26, (8, 26), 18), "the new chunk begins at frame 8, a third of a second"
    assert close(after[:, :, :held], before[:, :, -held:])
    assert not close(after[:, :, held:], before[:, :, : after.shape[2] - held]), "what follows is new"
    other = here.run(extend_request(source, prompt="a dog barks", num_frames=24, family=here.family).plan(here.family))
    assert not close(sound_of(other["draft_2"])[:, :, held:], after[:, :, held:])


def test_the_sound_of_an_extension_is_decoded_as_one_and_begins_as_it_was(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    source = here.ask(**ONE_STAGE)
    longer = extend_request(source, prompt="thunder", num_frames=24, family=here.family)
    alone, results = here.run(source.plan(here.family)), here.run(longer.plan(here.family))
    before, whole = cast(Waveform, alone["sound"]), cast(Waveform, results["sound"])
    call = cast(DecodeAudio, calls_of(longer.plan(here.family))["sound"])
    assert call.heard == (0, 18)
    audio = torch.cat([sound_of(results["draft"]), sound_of(results["draft_2"])[:, :, 18:]], dim=2)
    assert audio.shape[2] == here.family.grid.audio_tokens_of(longer.video) == 51
    seen_ahead = before.sample_rate // 10  # by the vocoder
    length = before.samples.shape[2] - seen_ahead
    assert close(whole.samples[:, :, :length], before.samples[:, :, :length])
    lasting, shown = whole.samples.shape[2] / whole.sample_rate, longer.num_frames / longer.frame_rate
    assert 0 <= shown - lasting < 0.06, "the file ends with silence of at most that"
    assert cast(Video, results["video"]).shape.num_frames == 49


@pytest.mark.parametrize("lengths", [(25, 49, 73, 97, 121), (25, 33, 41, 49, 57)])
@pytest.mark.parametrize("frame_rate", [16, 23.976, 24, 30, 50])
def test_however_often_a_video_is_carried_on_its_sound_is_as_long_as_it_is(
    lengths: tuple[int, ...], frame_rate: float, desk: Callable[..., Desk]
) -> None:
    family = desk("2.3").family
    *before, num_frames = lengths
    request = parse_request({**ONE_STAGE, "num_frames": num_frames, "extends": tuple(before), "frame_rate": frame_rate}, family=family)
    calls = calls_of(request.plan(family))
    call = cast(DecodeAudio, calls["sound"])
    clips = [cast(Denoise, calls[ref.step]) for ref in call.clips]  # type: ignore[union-attr]
    tokens = sum(family.grid.audio_tokens_of(clip.video) for clip in clips) - sum(call.heard)
    assert abs(tokens - family.grid.audio_tokens_of(request.video)) <= 1
    for clip, heard in zip(clips[1:], call.heard[1:], strict=True):
        assert [pin.part[1] - pin.part[0] for pin in clip.sound_pins] == [heard]


def test_both_stages_hold_the_sound_of_their_own(desk: Callable[..., Desk]) -> None:
    here = desk("2.3", variant="distilled")
    source = parse_request({**SMALL, "pipeline": "distilled"}, family=here.family)
    plan = extend_request(source, prompt="thunder", num_frames=8, family=here.family).plan(here.family)
    results, calls = here.run(plan), calls_of(plan)
    for stage in ("draft", "refined"):
        (pin,) = cast(Denoise | Refine, calls[f"{stage}_2"]).sound_pins
        before, after = sound_of(results[stage]), sound_of(results[f"{stage}_2"])
        assert close(after[:, :, : pin.part[1] - pin.part[0]], before[:, :, slice(*pin.part)])
    assert cast(DecodeAudio, calls["sound"]).heard[1] == pin.part[1] - pin.part[0]
