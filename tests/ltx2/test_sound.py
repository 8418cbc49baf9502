"""sound that is given: of the video that is carried on, of an upload -> held as it was, heard as it was"""

import io
from collections.abc import Callable
from typing import Any, cast

import av
import pytest
import torch

from aiprod_components.calls import DecodeAudio, Denoise, Refine
from aiprod_components.media.sounds import read_sound
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.derived import extend_request
from aiprod_components.stages.ltx2.audio_encoder import log_mel, mel_filters
from aiprod_components.values import AudioLatents, Latents, Sound, Video, Waveform
from tests.ltx2.desk import Desk, calls_of, close, sound_of
from tests.media.test_sounds import sound_file, sweep, tone

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


SOUND = Sound(sound_file(sweep()))
GIVEN: dict[str, Any] = {
    "prompt": "a drummer",
    "height": 64,
    "width": 64,
    "seed": 5,
    "num_inference_steps": 2,
    "sound": {"sound": SOUND},
}


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_a_given_sound_is_held_in_both_stages_and_heard_as_it_is(version: str, desk: Callable[..., Desk]) -> None:
    here = desk(version)
    request = here.ask(**GIVEN)
    results = here.run(request.plan(here.family))
    heard = cast(AudioLatents, results["heard"]).audio
    assert (request.pipeline, request.num_frames, heard.shape) == ("audio_to_video", 17, (1, 8, 18, 16))
    assert close(sound_of(results["draft"]), heard) and close(sound_of(results["refined"]), heard)
    sound, length = cast(Waveform, results["sound"]), 34_000  # of 17 frames at 24 a second
    assert torch.equal(sound.samples[0], read_sound(SOUND, sample_rate=48_000, start=0.0, seconds=17 / 24))
    with av.open(io.BytesIO(cast(Video, results["video"]).data)) as container:
        (stream,) = container.streams.audio
        assert stream.sample_rate == sound.sample_rate and sound.samples.shape[2] == length


def test_pictures_go_with_the_sound(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    one = cast(Latents, here.run(here.ask(**GIVEN).plan(here.family))["draft"])
    other_sound = {"sound": Sound(sound_file(tone(pitch=2000.0)))}
    other = cast(Latents, here.run(here.ask(**{**GIVEN, "sound": other_sound}).plan(here.family))["draft"])
    assert not close(one.video, other.video)


def test_what_is_wholly_held_is_no_noise_to_the_network(desk: Callable[..., Desk]) -> None:
    here, asked = desk("2.3"), list[dict[str, Any]]()
    transformer: Any = here.stages["denoiser"]._network._transformer  # pyright: ignore[reportAttributeAccessIssue]
    forward = transformer.forward

    def told(*args: Any, **question: Any) -> Any:
        asked.append(question)
        return forward(*args, **question)

    transformer.forward = told
    try:
        here.run(here.ask(**GIVEN).plan(here.family))
        given = list(asked)
        asked.clear()
        here.run(here.ask(**ONE_STAGE).plan(here.family))
    finally:
        transformer.forward = forward
    for question in given:
        assert not question["audio_timestep"].any() and not question["audio_sigma"].any()
        assert question["timestep"].all() and question["audio_timestep"].shape[1] == 18
    assert all(torch.equal(question["audio_timestep"], question["timestep"]) for question in asked)


def test_a_spectrogram_has_a_tone_where_it_is_and_begins_with_the_sound() -> None:
    filters = mel_filters(rate=16_000, bands=64)
    samples = torch.from_numpy(tone(pitch=1000.0, rate=16_000))
    spectrogram = log_mel(samples, hop=160, filters=filters)
    assert spectrogram.shape == (2, 101, 64)
    bands = torch.arange(513) / 512 * 8000
    loudest = spectrogram[0, 90].argmax()
    assert (filters[:, loudest] * bands).sum() / filters[:, loudest].sum() == pytest.approx(1000, rel=0.05)
    assert torch.allclose(spectrogram[0, 50, loudest] - spectrogram[1, 50, loudest], torch.tensor(2.0).log(), atol=1e-3)
    late = torch.zeros(2, 16_000)
    late[:, 8000:] = samples[:, 8000:]
    assert log_mel(late, hop=160, filters=filters)[0, :46].exp().max() < 1.1e-5, "a window reaches 32 ms back and ahead"
