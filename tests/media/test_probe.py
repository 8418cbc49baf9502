"""Uploaded videos are hostile until they are checked: the readers that run in the sandbox, looked at from within."""

import io
import random
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media import moments, probe
from aiprod_components.media.probe import survey
from tests.media.clips import CODECS, corner, encoded, gray, sound, written

FIELD = "reference_video"


def refusal(data: bytes, *, field: str = "input_video") -> str:
    with pytest.raises(InvalidMediaError) as caught:
        survey(data, field=field)
    assert caught.value.field == field and caught.value.message.startswith(f"{field} ")
    return caught.value.message


def test_words_in_another_alphabet_do_no_harm(tmp_path: Path):
    data = encoded(corner(), tmp_path, metadata={"title": "Cafe"}).replace(b"Cafe", b"Caf\xe9")
    assert b"Caf\xe9" in data
    survey(data, field=FIELD)


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
        (bytes(probe.MAX_BYTES + 1), "must be at most 25000000 bytes, got 25000001"),
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
    survey(data, field=FIELD)
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
            survey(bytes(harmed), field=FIELD)
            shown = moments.moments(bytes(harmed), field=FIELD, num_frames=4, period=Fraction(1, 24), size=(64, 48))
            assert sum(times for _, times in shown) == 4
        except InvalidMediaError:
            refused += 1
    assert refused > 0


def test_an_mp4_of_sound_alone_is_refused(tmp_path: Path):
    assert "has no video stream" in refusal(sound(tmp_path))


def test_three_hours_are_refused_without_reading_a_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = encoded(gray([40] * 11), tmp_path, rate=Fraction(1, 1000))
    monkeypatch.delattr(probe, "bounded")
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
    survey(encoded(corner(), tmp_path) + harmless, field=FIELD)


def test_a_codec_of_no_browser_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CODECS, "mov", "mpeg4")
    assert "must be coded in one of H.264, H.265, VP8, VP9, AV1, got mpeg4" in refusal(encoded(corner(), tmp_path, container="mov"))
    assert "got something unknown" in refusal(encoded(corner(), tmp_path).replace(b"avc1", b"xyz1"))


def test_a_frame_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wide = encoded(gray([40], height=16, width=8200), tmp_path)
    assert "at most 8192 pixels a side" in refusal(wide) and "got 8200x16; make it smaller" in refusal(wide)
    data = encoded(corner(), tmp_path)
    monkeypatch.setattr(probe, "MAX_PIXELS", 64 * 48 - 1)
    assert "3071 in a frame" in refusal(data) and "got 64x48" in refusal(data)
    monkeypatch.undo()
    monkeypatch.setattr(probe, "MAX_DECODED", 2 * 64 * 48)
    assert "got 3 frames of 64x48" in refusal(data)


def test_more_frames_than_a_second_has_are_refused(tmp_path: Path):
    message = refusal(encoded(corner(20), tmp_path, rate=Fraction(1000)))
    assert "240 a second, got 20 in 0.020 s; lower its rate" in message


def test_decoding_stops_at_the_budget_whatever_was_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with probe.opened(encoded(corner(10), tmp_path), field=FIELD) as (container, stream):
        monkeypatch.setattr(moments, "MAX_DECODED", 5 * 64 * 48)
        decoded = moments._decoded(container, stream, field=FIELD)
        with pytest.raises(InvalidMediaError, match="pixels in all its frames"):
            assert [next(decoded) for _ in range(5)] and next(decoded)


def test_packets_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "MAX_PACKETS", 5)
    assert "at most 5 packets in all" in refusal(encoded(corner(10), tmp_path))
