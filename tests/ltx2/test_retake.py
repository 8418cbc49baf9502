"""video and sound outside of the span -> held as the VAEs encoded them; inside of it made anew, by prompt and seed"""

import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
import numpy as np
import pytest
import torch

from aiprod_components.calls import Denoise
from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.sounds import read_sound
from aiprod_components.values import AudioLatents, Footage, Latents, Waveform
from tests.ltx2.desk import Desk, calls_of, close, sound_of

ASKED: dict[str, Any] = {"pipeline": "retake", "num_inference_steps": 2, "num_frames": 25, "prompt": "thunder", "seed": 3}
# At 24 frames a second frames 10 to 15, which are in latent frame 2, which is frames 9 to 16: from 0.375 to 0.708 seconds.
SPAN = {"from_seconds": 10 / 24, "to_seconds": 16 / 24}
OUTSIDE, INSIDE = [0, 1, 3], [2]
HEARD_FROM, HEARD_TO = 9, 19  # audio latents, of which each is a twenty-fifth of a second


@cache
def film(*, with_sound: bool = True, pitch: float = 330.0) -> bytes:
    """A square that goes from left to right, and a tone that becomes louder."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        shown = container.add_stream("libx264", rate=24)
        shown.height, shown.width, shown.pix_fmt = 64, 64, "yuv420p"
        heard = container.add_stream("aac", rate=48_000, layout="stereo") if with_sound else None
        for number in range(25):
            pixels = np.full((64, 64, 3), 30, np.uint8)
            pixels[16:48, number : number + 32] = (220, 90, 30)
            container.mux(shown.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(shown.encode(None))
        if heard is not None:
            moments = np.arange(50_000) / 48_000
            wave = (0.5 * moments * np.sin(2 * np.pi * pitch * moments)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            container.mux(heard.encode(frame))
            container.mux(heard.encode(None))
    return file.getvalue()


def retake(here: Desk, *, video: bytes | None = None, **fields: Any) -> dict[str, Any]:
    return here.run(here.ask(**{**ASKED, **SPAN, "reference_video": {"footage": Footage(video or film())}, **fields}).plan(here.family))


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_pictures_and_sound_outside_of_the_span_are_held_and_inside_made_anew(version: str, desk: Callable[..., Desk]) -> None:
    here = desk(version)
    results = retake(here)
    source, draft = cast(Latents, results["source"]).video, cast(Latents, results["draft"]).video
    assert torch.equal(draft[:, :, OUTSIDE], source[:, :, OUTSIDE])
    heard, made = cast(AudioLatents, results["source_sound"]).audio, sound_of(results["draft"])
    assert heard.shape == made.shape == (1, 8, 26, 16)
    assert close(made[:, :, :HEARD_FROM], heard[:, :, :HEARD_FROM]) and close(made[:, :, HEARD_TO:], heard[:, :, HEARD_TO:])
    other = retake(here, prompt="a dog barks")["draft"]
    for new, old, span in ((draft, source, slice(2, 3)), (made, heard, slice(HEARD_FROM, HEARD_TO))):
        assert (new[:, :, span] != old[:, :, span]).float().mean() > 0.99
    assert (other.video[:, :, INSIDE] != draft[:, :, INSIDE]).any() and torch.equal(other.video[:, :, OUTSIDE], source[:, :, OUTSIDE])
    assert not close(sound_of(other)[:, :, HEARD_FROM:HEARD_TO], made[:, :, HEARD_FROM:HEARD_TO])
    assert cast(Waveform, results["sound"]).samples.shape[2] > 48_000 or version == "2.0"


def test_what_is_new_hears_what_stays(desk: Callable[..., Desk]) -> None:
    """The sound before and behind the span reaches the pictures in it."""
    here = desk("2.3")
    one, other = retake(here)["draft"], retake(here, video=film(pitch=2000.0))["draft"]
    assert not close(one.video[:, :, INSIDE], other.video[:, :, INSIDE])


def test_a_sound_that_is_kept_is_held_wholly_and_heard_as_it_was(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    results = retake(here, keep_sound=True)
    assert close(sound_of(results["draft"]), cast(AudioLatents, results["source_sound"]).audio)
    sound = cast(Waveform, results["sound"])
    as_it_was = read_sound(Footage(film()), sample_rate=sound.sample_rate, start=0.0, seconds=25 / 24)
    assert sound.samples.shape == (1, 2, 50_000) and torch.equal(sound.samples[0], as_it_was)
    with av.open(io.BytesIO(results["video"].data)) as container:
        assert len(container.streams.audio) == 1


def test_a_silent_video_stays_silent_and_has_no_sound_to_keep(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    results = retake(here, video=film(with_sound=False))
    assert "sound" not in results and "source_sound" not in results
    with av.open(io.BytesIO(results["video"].data)) as container:
        assert len(container.streams.audio) == 0
    with pytest.raises(InvalidMediaError, match="keep_sound needs a sound to keep, and reference_video has none"):
        retake(here, video=film(with_sound=False), keep_sound=True)


@pytest.mark.parametrize(("begin", "end", "anew"), [(0.0, 0.3, (0, 11)), (0.8, 25 / 24, (17, 26)), (0.0, 25 / 24, (0, 26))])
def test_the_span_of_the_sound_covers_that_of_the_pictures(
    begin: float, end: float, anew: tuple[int, int], desk: Callable[..., Desk]
) -> None:
    here = desk("2.3")
    request = here.ask(**{**ASKED, "reference_video": {"footage": Footage(film())}, "from_seconds": begin, "to_seconds": end})
    call = cast(Denoise, calls_of(request.plan(here.family))["draft"])
    held = [pin.part for pin in call.sound_pins]
    assert held == [part for part in ((0, anew[0]), (anew[1], 26)) if part[0] < part[1]]
    assert all(pin.at == pin.part[0] for pin in call.sound_pins)
