"""Uploaded videos are hostile until they are checked; then they are frames of the size and rate that was asked for."""

import io
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media import footage as module
from aiprod_components.media.footage import check_aspect, check_footage, check_length, probe_footage, read_footage
from aiprod_components.values import Footage

FIELD = "reference_video"
CODECS = {"mp4": "libx264", "mov": "libx265", "webm": "libvpx-vp9", "mkv": "libvpx"}


def gray(levels: list[int], *, height: int = 48, width: int = 64) -> UInt8[np.ndarray, "T H W 3"]:
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def corner(num_frames: int = 3) -> UInt8[np.ndarray, "T H W 3"]:
    """Black, with a white patch in the upper left."""
    pixels = gray([16] * num_frames)
    pixels[:, :24, :32] = 235
    return pixels


def encoded(
    pixels: UInt8[np.ndarray, "T H W 3"],
    folder: Path,
    *,
    container: str = "mp4",
    rate: Fraction = Fraction(24),
    options: dict[str, str] | None = None,
    turned: tuple[int, bool] = (0, False),
    aspect: Fraction = Fraction(1),
    metadata: dict[str, str] | None = None,
) -> bytes:
    path = folder / f"video.{container}"
    with av.open(str(path), "w", options=options or {}) as file:
        file.metadata.update(metadata or {})
        stream = cast(VideoStream, file.add_stream(CODECS[container], rate=rate))
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if any(turned):
            stream.set_display_rotation(turned[0], hflip=turned[1])
        for frame in pixels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return path.read_bytes()


def sound(folder: Path) -> bytes:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path.read_bytes()


def written(data: bytes, tag: bytes, *, at: int, value: int) -> bytes:
    """The bytes with a number of 32 bits changed, so far behind the start of a box's name."""
    place = data.index(tag) + at
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def levels(frames: torch.Tensor) -> list[int]:
    return frames[0, :, 24, 32, 0].tolist()


def refusal(data: bytes, *, field: str = "input_video") -> str:
    with pytest.raises(InvalidMediaError) as caught:
        check_footage(data, field=field)
    assert caught.value.field == field and caught.value.message.startswith(f"{field} ")
    return caught.value.message


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


def test_words_in_another_alphabet_do_no_harm(tmp_path: Path):
    data = encoded(corner(), tmp_path, metadata={"title": "Cafe"}).replace(b"Cafe", b"Caf\xe9")
    assert b"Caf\xe9" in data
    check_footage(data, field=FIELD)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty; send an mp4"),
        (b"just some text", "is not a video; send an mp4"),
        (png(), "is not a video"),
        (PLAYLIST, "is not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is not a video"),
        (b"\0\0\0\x18ftypisom" + PLAYLIST, "damaged|no video stream"),
        (b"\0\0\0\x18ftypisom", "damaged|no video stream"),
        (b"\x1aE\xdf\xa3" + PLAYLIST, "damaged"),
        (bytes(module.MAX_BYTES + 1), "must be at most 25000000 bytes, got 25000001"),
    ],
    ids=["empty", "text", "png", "playlist", "script", "playlist behind mp4", "mp4 of nothing", "playlist behind webm", "heavy"],
)
def test_what_is_not_a_video_is_refused_with_the_way_out(data: bytes, reason: str):
    assert any(part in refusal(data) for part in reason.split("|"))


def test_random_bytes_are_refused():
    source = random.Random(0)
    starts = (b"", b"\0\0\0\x20ftypisom", b"\0\0\0\x08free", b"\0\0\x10\0moov", b"\x1aE\xdf\xa3")
    for trial in range(100):
        message = refusal(starts[trial % len(starts)] + source.randbytes(source.randint(1, 3000)))
        assert "not a video" in message or "damaged" in message or "no video stream" in message


@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}], ids=["index at the end", "index in front"])
def test_an_mp4_cut_anywhere_is_refused(options: dict[str, str], tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    data = encoded(noise, tmp_path, options=options)
    check_footage(data, field=FIELD)
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.98):
        message = refusal(data[: int(len(data) * share)])
        assert "damaged" in message or "no video stream" in message or "not a video" in message


def test_a_webm_cut_in_half_is_refused(tmp_path: Path):
    data = encoded(gray([40] * 48), tmp_path, container="webm")
    assert "of its 2.00 s" in refusal(data[: len(data) // 2])


def test_damaged_bytes_end_in_a_refusal_or_in_frames(tmp_path: Path):
    """Whatever is in the file, nothing but InvalidMediaError leaves the door."""
    source = random.Random(1)
    data = encoded(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8), tmp_path)
    refused = 0
    for _ in range(60):
        harmed = bytearray(data)
        for _ in range(20):  # half of them in the index, which is at the end
            harmed[source.randrange(source.choice([0, len(data) * 9 // 10]), len(data))] = source.randrange(256)
        try:
            read_footage(check_footage(bytes(harmed), field=FIELD), num_frames=4, height=48, width=64, frame_rate=24.0)
        except InvalidMediaError:
            refused += 1
    assert refused > 0


def test_an_mp4_of_sound_alone_is_refused(tmp_path: Path):
    assert "has no video stream" in refusal(sound(tmp_path))


def test_three_hours_are_refused_without_reading_a_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = encoded(gray([40] * 11), tmp_path, rate=Fraction(1, 1000))
    monkeypatch.delattr(module, "_bounded")
    assert "must be at most 60 s long, got 11000 s" in refusal(data)


def test_a_header_that_says_less_than_the_packets_is_not_believed(tmp_path: Path):
    data = encoded(gray([40] * 11), tmp_path, container="webm", rate=Fraction(1, 10))
    duration = data.index(b"\x44\x89\x88") + 3  # EBML: Duration, eight bytes
    assert "must be at most 60 s long, got 110 s" in refusal(data[:duration] + struct.pack(">d", 1000.0) + data[duration + 8 :])


@pytest.mark.parametrize("tag", [b"stsz", b"trun"])
def test_an_index_of_millions_in_a_few_bytes_is_refused_before_it_is_built(tag: bytes, tmp_path: Path):
    fragments = {"movflags": "frag_keyframe+empty_moov"} if tag == b"trun" else {}
    data = encoded(corner(), tmp_path, options=fragments)
    if tag == b"stsz":
        data = written(written(data, tag, at=8, value=1), tag, at=12, value=50_000_000)
    else:
        data = written(data, tag, at=8, value=50_000_000)
    assert "must have an index of at most 2880000 entries, got 50000000 entries" in refusal(data)


def test_the_name_of_an_index_among_the_pictures_is_no_index(tmp_path: Path):
    harmless = b"\0\0\0\x20mdat" + b"stsz" + b"\xff" * 20
    check_footage(encoded(corner(), tmp_path) + harmless, field=FIELD)


def test_a_codec_of_no_browser_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CODECS, "mov", "mpeg4")
    assert "must be coded in one of H.264, H.265, VP8, VP9, AV1, got mpeg4" in refusal(encoded(corner(), tmp_path, container="mov"))
    assert "got something unknown" in refusal(encoded(corner(), tmp_path).replace(b"avc1", b"xyz1"))


def test_a_frame_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wide = encoded(gray([40], height=16, width=8200), tmp_path)
    assert "at most 8192 pixels a side" in refusal(wide) and "got 8200x16; make it smaller" in refusal(wide)
    data = encoded(corner(), tmp_path)
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 48 - 1)
    assert "3071 in a frame" in refusal(data) and "got 64x48" in refusal(data)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_DECODED", 2 * 64 * 48)
    assert "got 3 frames of 64x48" in refusal(data)


def test_more_frames_than_a_second_has_are_refused(tmp_path: Path):
    message = refusal(encoded(corner(20), tmp_path, rate=Fraction(1000)))
    assert "240 a second, got 20 in 0.020 s; lower its rate" in message


def test_decoding_stops_at_the_budget_whatever_was_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    footage = Footage(encoded(corner(10), tmp_path))
    with module._opened(footage.data, field=FIELD) as (container, stream):
        monkeypatch.setattr(module, "MAX_DECODED", 5 * 64 * 48)
        decoded = module._decoded(container, stream, field=FIELD)
        with pytest.raises(InvalidMediaError, match="pixels in all its frames"):
            assert [next(decoded) for _ in range(5)] and next(decoded)


def test_packets_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_PACKETS", 5)
    assert "at most 5 packets in all" in refusal(encoded(corner(10), tmp_path))


def test_footage_is_known_by_its_content():
    footage = Footage(b"abc")
    assert footage.digest == Footage(b"abc").digest != Footage(b"abd").digest
    assert repr(footage) == f"Footage(3 bytes, sha256 {footage.digest[:12]})"
