"""Uploaded sounds are hostile until they are checked, and are read in the sandbox alone; then they are samples of the asked rate."""

import io
import wave
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media import hearing
from aiprod_components.media.footage import check_footage
from aiprod_components.media.sounds import check_sound, probe_sound, read_sound
from aiprod_components.media.uploads import check_media
from aiprod_components.values import Footage, Sound
from tests.bodies import footage, picture
from tests.media.clips import with_sound

# Container -> its codec, and the seconds by which it may begin late or end early.
KINDS: dict[str, tuple[str, float]] = {
    "wav": ("pcm_s16le", 0.0),
    "flac": ("flac", 0.0),
    "mp3": ("libmp3lame", 0.06),
    "adts": ("aac", 0.06),
    "mp4": ("aac", 0.03),
    "webm": ("libopus", 0.03),
}


def tone(seconds: float = 1.0, *, rate: int = 48_000, pitch: float = 440.0, channels: int = 2) -> np.ndarray:
    """Louder and louder, the second channel half as loud."""
    moments = np.arange(round(seconds * rate)) / rate
    wave = 0.8 * moments / seconds * np.sin(2 * np.pi * pitch * moments)
    return np.stack([wave / (number + 1) for number in range(channels)]).astype(np.float32)


def sound_file(wave: np.ndarray, *, container: str = "wav", codec: str = "pcm_s16le", rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(wave)]
    with av.open(file, "w", format=container) as out:
        stream = cast(AudioStream, out.add_stream(codec, rate=rate, layout=layout))  # pyright: ignore[reportArgumentType]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.sample_rate = rate
        coded = stream.codec_context
        fitting = av.AudioResampler(format=coded.format, layout=layout, rate=rate, frame_size=coded.frame_size)
        for part in fitting.resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return file.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidMediaError) as caught:
        check_sound(data, field="sound")
    assert caught.value.field == "sound" and caught.value.message.startswith("sound ")
    return caught.value.message


@pytest.mark.parametrize("container", KINDS)
def test_every_kind_of_sound_is_read_as_it_was(container: str) -> None:
    codec, slack = KINDS[container]
    wave = sweep()
    sound = check_sound(sound_file(wave, container=container, codec=codec), field="sound")
    assert probe_sound(sound) == pytest.approx(1.0, abs=max(slack, 1e-6))
    heard = read_sound(sound, sample_rate=48_000, start=0.0, seconds=1.0).numpy()
    likeness = np.fft.irfft(np.fft.rfft(heard[0]) * np.fft.rfft(wave[0]).conj())
    late = (int(likeness.argmax()) + 24_000) % 48_000 - 24_000
    assert abs(late) <= slack * 48_000
    same, was = np.roll(heard, -late, axis=1)[:, 8000:40_000], wave[:, 8000:40_000]
    assert np.corrcoef(same.ravel(), was.ravel())[0, 1] > 0.97 and same.std() == pytest.approx(was.std(), rel=0.1)


def sweep() -> np.ndarray:
    """Higher and higher, so that no moment is like another."""
    moments = np.arange(48_000) / 48_000
    wave = 0.7 * np.sin(2 * np.pi * (200 + 500 * moments) * moments)
    return np.stack([wave, wave / 2]).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sound_of_any_rate_and_channels_becomes_stereo_of_the_asked_rate(rate: int, channels: int) -> None:
    sound = Sound(sound_file(tone(rate=rate, channels=channels, pitch=1000), rate=rate))
    heard = read_sound(sound, sample_rate=16_000, start=0.25, seconds=0.5).numpy()
    assert heard.shape == (2, 8000) and 0.1 < np.abs(heard).max() <= 1
    assert np.abs(np.fft.rfft(heard[0])).argmax() == 500
    if channels == 1:
        assert np.array_equal(heard[0], heard[1])
    if channels < 3:
        expected = tone(rate=16_000, channels=2, pitch=1000)[:, 4000:12_000]
        assert np.abs(heard[0] - expected[0]).max() < 0.03


def test_sound_that_ends_is_silent_from_there_on() -> None:
    heard = read_sound(Sound(sound_file(tone(0.5))), sample_rate=16_000, start=0.0, seconds=1.0)
    assert heard.shape == (2, 16_000) and heard[:, :7000].abs().max() > 0.5 and not heard[:, 8100:].any()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty; send a wav"),
        (b"just some text", "is not a sound; send a wav"),
        (picture(), "is not a sound"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "damaged"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "is not a sound"),
        (footage(), "has no sound in it"),
        (sound_file(tone(61.0, rate=8000), rate=8000), "must be at most 60 s long, got 61 s"),
        (sound_file(tone(0.01), codec="adpcm_ms"), "has no sound in it"),
    ],
    ids=["empty", "text", "png", "stub", "playlist", "silent film", "long", "odd codec"],
)
def test_what_is_no_sound_is_refused_with_the_way_out(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_a_sound_that_is_cut_off_in_the_middle_is_heard_as_far_as_it_goes_or_refused() -> None:
    data = sound_file(tone(2.0), container="mp4", codec="aac")
    with pytest.raises(InvalidMediaError, match="sound "):
        check_sound(data[: len(data) // 2], field="sound")
    half = sound_file(tone(2.0))
    assert probe_sound(check_sound(half[: len(half) // 2], field="sound")) == pytest.approx(1.0, abs=0.05)


def test_more_samples_than_are_allowed_are_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MAX_SAMPLES", 10_000)
    with pytest.raises(InvalidMediaError, match="at most 10000 samples"):
        list(hearing.samples(sound_file(tone()), field="sound"))


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_a_video_tells_how_long_its_sound_is_and_it_is_read_beside_the_pictures(container: str, tmp_path: Path) -> None:
    film = check_footage(with_sound(tmp_path, container=container), field="reference_video")
    assert film.shape is not None and film.shape.sound_seconds == pytest.approx(0.125, abs=0.03)
    assert probe_sound(film) == film.shape.sound_seconds
    assert read_sound(film, sample_rate=16_000, start=0.0, seconds=0.125).shape == (2, 2000)
    silent = check_footage(footage(), field="reference_video")
    assert silent.shape is not None and silent.shape.sound_seconds == 0 == probe_sound(Footage(footage()))


def test_a_sound_is_checked_beside_pictures_and_videos() -> None:
    data = sound_file(tone())
    media = check_media(pictures={"a": picture()}, footage={"b": footage()}, sounds={"c": data})
    assert media.sounds == {"c": Sound(data)} and media.sounds["c"].seconds == pytest.approx(1.0)


def plain_wav(wave_form: np.ndarray, *, rate: int) -> bytes:
    """As many write it: channels without names."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(wave_form))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((wave_form.T * 32_767).astype("<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("channels", [3, 7, 8])
def test_sound_of_many_channels_without_names_is_heard_in_stereo(channels: int) -> None:
    sound = check_sound(plain_wav(tone(rate=16_000, channels=channels, pitch=1000), rate=16_000), field="sound")
    heard = read_sound(sound, sample_rate=16_000, start=0.25, seconds=0.5).numpy()
    assert heard.shape == (2, 8000) and np.abs(heard).max() > 0.1 and np.abs(np.fft.rfft(heard[0])).argmax() == 500


@pytest.mark.parametrize(
    ("seconds", "rate", "reason"),
    [(0.0002, 8000, "must be at least 0.01 s long, got 0.00025 s"), (3.0, 1, "must have at least 4000 samples a second, got 1")],
)
def test_a_sound_that_nobody_hears_is_refused_and_read_as_silence(seconds: float, rate: int, reason: str) -> None:
    data = plain_wav(np.full((2, max(round(seconds * rate), 2)), 0.5), rate=rate)
    assert reason in refusal(data)
    if rate > 1:
        assert not read_sound(Sound(data), sample_rate=16_000, start=0.0, seconds=0.1).any()


def test_after_a_pause_in_a_file_sound_is_heard_when_the_file_says() -> None:
    """A tone of a second, nothing by its timestamps for half a second, and a tone again."""
    file, rate = io.BytesIO(), 48_000
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=rate, layout="stereo")
        size = 1024
        for number in range(2 * rate // size):
            moments = (np.arange(size) + number * size) / rate
            part = 0.5 * np.sin(2 * np.pi * 1000 * moments).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([part, part]), format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = number * size + (rate // 2 if number * size >= rate else 0)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    sound = check_sound(file.getvalue(), field="sound")
    assert probe_sound(sound) == pytest.approx(2.5, abs=0.05)
    loud = np.abs(read_sound(sound, sample_rate=16_000, start=0.0, seconds=2.6).numpy()[0]).reshape(-1, 800).max(axis=1)
    assert (loud[:20] > 0.4).all() and (loud[22:29] < 0.1).all() and (loud[32:49] > 0.4).all()
    late = read_sound(sound, sample_rate=16_000, start=1.1, seconds=0.3).numpy()
    assert np.abs(late).max() < 0.1
