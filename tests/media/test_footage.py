"""Uploaded videos become frames of the size and rate that was asked for; they are read in the sandbox."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.footage import check_aspect, check_footage, check_length, probe_footage, read_footage
from aiprod_components.values import Footage
from tests.media.clips import CODECS, corner, encoded, gray, with_sound

FIELD = "reference_video"


def levels(frames: torch.Tensor) -> list[int]:
    return frames[0, :, 24, 32, 0].tolist()


@pytest.mark.parametrize("container", CODECS)
def test_footage_is_measured_in_every_container(container: str, tmp_path: Path):
    footage = check_footage(encoded(gray([40] * 48), tmp_path, container=container), field=FIELD)
    shape = probe_footage(footage)
    assert (shape.width, shape.height) == (64, 48)
    assert shape.seconds == pytest.approx(2.0, abs=0.05) and shape.frame_rate == pytest.approx(24, abs=0.5)


@pytest.mark.parametrize("container", CODECS)
def test_frames_come_back_one_by_one(container: str, tmp_path: Path):
    sent = [20 + 10 * step for step in range(20)]
    frames = read_footage(Footage(encoded(gray(sent), tmp_path, container=container)), num_frames=20, height=48, width=64, frame_rate=24.0)
    assert frames.shape == (1, 20, 48, 64, 3)
    assert max(abs(got - level) for got, level in zip(levels(frames), sent, strict=True)) <= 4


def test_sound_and_words_beside_the_pictures_do_no_harm(tmp_path: Path):
    """The sandbox has nothing left to open when it meets them."""
    film = with_sound(tmp_path, container="mkv")
    track_type, codec = film.index(b"\x83\x81\x02"), film.index(b"A_AAC")  # EBML: TrackType of sound
    titled = film[:codec] + b"S_XYZ" + film[codec + 5 :]
    titled = titled[:track_type] + b"\x83\x81\x11" + titled[track_type + 3 :]  # of subtitles
    for data in (with_sound(tmp_path, container="mp4"), film, titled):
        shape = probe_footage(check_footage(data, field=FIELD))
        assert (shape.width, shape.height) == (64, 48) and shape.seconds == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize(
    ("rate", "asked", "nearest"),
    [
        (24, 12.0, [0, 2, 4, 6, 8]),
        (12, 24.0, [0, 0, 1, 1, 2, 2, 3]),
        (30, 24.0, [0, 1, 2, 4, 5, 6]),
        (24, 16.0, [0, 1, 3, 4, 6, 7]),
    ],
)
def test_each_moment_shows_the_frame_nearest_in_time(rate: int, asked: float, nearest: list[int], tmp_path: Path):
    data = encoded(gray([20 + 20 * step for step in range(10)]), tmp_path, rate=Fraction(rate))
    frames = read_footage(Footage(data), num_frames=len(nearest), height=48, width=64, frame_rate=asked)
    assert [round((level - 20) / 20) for level in levels(frames)] == nearest


def test_frames_are_resized_exactly(tmp_path: Path):
    frames = read_footage(Footage(encoded(corner(), tmp_path)), num_frames=2, height=96, width=128, frame_rate=24.0)
    assert frames.shape == (1, 2, 96, 128, 3)
    assert frames[0, 0, 20, 30, 0] > 200 and frames[0, 0, 20, 100, 0] < 50 and frames[0, 0, 80, 30, 0] < 50


@pytest.mark.parametrize(
    ("turned", "bright"),
    [
        ((0, False), (0, 0)),
        ((90, False), (1, 0)),
        ((180, False), (1, 1)),
        ((270, False), (0, 1)),
        ((0, True), (0, 1)),
        ((180, True), (1, 0)),
    ],
)
def test_footage_is_turned_as_its_camera_held_it(turned: tuple[int, bool], bright: tuple[int, int], tmp_path: Path):
    footage = check_footage(encoded(corner(), tmp_path, turned=turned), field=FIELD)
    shape = probe_footage(footage)
    assert (shape.width, shape.height) == ((48, 64) if turned[0] % 180 else (64, 48))
    frame = read_footage(footage, num_frames=1, height=shape.height, width=shape.width, frame_rate=24.0)[0, 0, ..., 0]
    quarters = frame[shape.height // 4 :: shape.height // 2, shape.width // 4 :: shape.width // 2] > 128
    assert quarters.nonzero().tolist() == [list(bright)]


def test_an_aspect_within_two_percent_is_taken(tmp_path: Path):
    footage = Footage(encoded(corner(), tmp_path))
    check_aspect(probe_footage(footage), height=48, width=64, field=FIELD)
    check_aspect(probe_footage(footage), height=480, width=648, field=FIELD)


def test_another_aspect_is_refused_with_both_sizes_and_a_crop(tmp_path: Path):
    footage = Footage(encoded(corner(), tmp_path))
    with pytest.raises(InvalidMediaError, match=r"64x64, got 64x48; crop it to 48x48, or ask for a width of about 85") as caught:
        check_aspect(probe_footage(footage), height=64, width=64, field=FIELD)
    assert caught.value.field == FIELD
    with pytest.raises(InvalidMediaError, match=r"128x64, got 64x48; crop it to 64x32"):
        check_aspect(probe_footage(footage), height=64, width=128, field=FIELD)


def test_pixels_that_are_not_square_count_as_they_are_shown(tmp_path: Path):
    footage = Footage(encoded(corner(), tmp_path, aspect=Fraction(3, 4)))
    check_aspect(probe_footage(footage), height=48, width=48, field=FIELD)


def test_footage_may_be_short_by_one_frame_and_no_more(tmp_path: Path):
    footage = Footage(encoded(gray([40] * 24), tmp_path))
    assert read_footage(footage, num_frames=25, height=48, width=64, frame_rate=24.0).shape[1] == 25
    with pytest.raises(
        InvalidMediaError, match=r"1\.08 s for num_frames 26 at frame_rate 24, got 1\.00 s; ask for num_frames at most 25"
    ) as caught:
        read_footage(footage, num_frames=26, height=48, width=64, frame_rate=24.0)
    assert caught.value.field == FIELD
    check_length(probe_footage(footage), num_frames=13, frame_rate=12.0, field=FIELD)
    with pytest.raises(InvalidMediaError, match="num_frames at most 13"):
        check_length(probe_footage(footage), num_frames=14, frame_rate=12.0, field=FIELD)


def test_footage_is_known_by_its_content():
    footage = Footage(b"abc")
    assert footage.digest == Footage(b"abc").digest != Footage(b"abd").digest
    assert repr(footage) == f"Footage(3 bytes, sha256 {footage.digest[:12]})"
