"""Files that lie, swell, point elsewhere or are something else are refused, or seen through, in bounded time and memory."""

import random
import resource
from pathlib import Path

import pytest

from aiprod_components.media.sandbox import CHECKING, Limits
from tests.hostile.doors import AS_FOOTAGE, AS_PICTURE, read, verdict, verdicts
from tests.hostile.forged_pictures import PICTURES, drawn
from tests.hostile.forged_videos import VIDEOS, film, noise

BATCH = Limits(cpu_seconds=30, wall_seconds=100.0)
TRIALS = 100
# How a file begins that some reader would take.
MAGIC = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "PNG's header": drawn("PNG")[:33],
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "WebP": b"RIFF\xff\xff\0\0WEBPVP8 ",
    "lossless WebP": b"RIFF\xff\xff\0\0WEBPVP8L",
    "extended WebP": b"RIFF\xff\xff\0\0WEBPVP8X",
    "GIF": b"GIF89a",
    "TIFF": b"II*\0",
    "BMP": b"BM",
    "PSD": b"8BPS\0\1",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "PDF": b"%PDF-1.7\n",
    "ZIP": b"PK\3\4",
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isommp41",
    "mp4's index": b"\0\0\x10\0moov\0\0\0\x6cmvhd",
    "mp4's data": b"\0\0\x10\0mdat",
    "mov": b"\0\0\0\x08wide",
    "Matroska": b"\x1aE\xdf\xa3",
    "webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm",
    "AVI": b"RIFF\xff\xff\0\0AVI LIST",
    "MPEG": b"\0\0\1\xba",
    "MPEG transport": b"G\x40\0\x10",
    "Ogg": b"OggS\0\2",
    "FLV": b"FLV\1\5",
    "ASF": b"0&\xb2u\x8ef\xcf\x11\xa6\xd9",
    "playlist": b"#EXTM3U\n",
    "script": b"ffconcat version 1.0\n",
    "nothing": b"",
}
REAL = {
    "PNG": (AS_PICTURE, lambda: drawn("PNG")),
    "JPEG": (AS_PICTURE, lambda: drawn("JPEG")),
    "progressive JPEG": (AS_PICTURE, lambda: drawn("JPEG", progressive=True)),
    "WebP": (AS_PICTURE, lambda: drawn("WEBP")),
    "lossless WebP": (AS_PICTURE, lambda: drawn("WEBP", lossless=True)),
    "mp4": (AS_FOOTAGE, noise),
    "mov": (AS_FOOTAGE, lambda: noise("mov")),
    "webm": (AS_FOOTAGE, lambda: noise("webm")),
    "mkv": (AS_FOOTAGE, lambda: noise("mkv")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_forged_picture(name: str) -> None:
    make, reason = PICTURES[name]
    said = verdict(AS_PICTURE, make())
    assert said is None if reason is None else reason in (said or "taken for a picture")


@pytest.mark.parametrize("name", VIDEOS)
def test_a_forged_video(name: str) -> None:
    make, reason = VIDEOS[name]
    said = verdict(AS_FOOTAGE, make())
    assert said is None if reason is None else reason in (said or "taken for a video")


def test_no_picture_is_a_video_and_no_video_a_picture() -> None:
    assert all("is not a video" in (said or "") for said in verdicts(AS_FOOTAGE, [make() for make, _ in PICTURES.values()], limits=BATCH))
    assert all("is not a picture" in (said or "") for said in verdicts(AS_PICTURE, [make() for make, _ in VIDEOS.values()], limits=BATCH))


@pytest.mark.parametrize("kind", [AS_PICTURE, AS_FOOTAGE])
def test_every_beginning_with_anything_behind_it_is_refused(kind: str) -> None:
    source = random.Random(0)
    files = [start + source.randbytes(source.randint(0, 3000)) for start in MAGIC.values() for _ in range(8)]
    assert None not in verdicts(kind, files, limits=BATCH)


@pytest.mark.parametrize("name", REAL)
def test_a_file_that_ends_too_early_is_refused(name: str) -> None:
    kind, make = REAL[name]
    is_matroska = name in ("webm", "mkv")  # which has no list of its frames: it may lack half a second
    data = noise(name, frames=48) if is_matroska else make()
    cuts = [round(len(data) * share / 60) for share in range(42 if is_matroska else 57)]  # a few bytes may be more than it needs
    *refused, whole = verdicts(kind, [*(data[:cut] for cut in cuts), data], limits=BATCH)
    assert whole is None and None not in refused


@pytest.mark.parametrize("name", REAL)
def test_bits_that_have_turned_end_in_pixels_or_in_a_refusal(name: str) -> None:
    kind, make = REAL[name]
    data, source = make(), random.Random(name)
    files = [_turned(data, source, count=source.choice([1, 3, 10, 40])) for _ in range(TRIALS)]
    said = verdicts(kind, files, limits=BATCH)
    assert 0 < sum(message is not None for message in said) < TRIALS
    assert read(kind, [data, *files], limits=BATCH) > 0


def _turned(data: bytes, source: random.Random, *, count: int) -> bytes:
    turned = bytearray(data)
    for _ in range(count):
        turned[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(turned)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (AS_PICTURE, "a PNG of 8K with one line of it"),
        (AS_PICTURE, "a JPEG of 8K with a corner of it"),
        (AS_PICTURE, "a WebP of 169 million pixels"),
        (AS_PICTURE, "pixels of 100 MB for 64 places"),
        (AS_FOOTAGE, "one frame of 8K"),
        (AS_FOOTAGE, "2 million samples of one byte"),
        (AS_FOOTAGE, "10,000 tracks"),
    ],
)
def test_what_swells_swells_in_the_child(kind: str, name: str) -> None:
    data = (PICTURES | VIDEOS)[name][0]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, others = _peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    verdict(kind, data)
    assert _peak() - before < 16 << 10
    # The largest child so far, which in a whole session may be another's: this one was none larger than it may be.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(others, CHECKING.memory_bytes >> 10)


def _peak() -> int:
    """KiB of memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_films_are_real_where_nothing_is_changed() -> None:
    """Else every refusal above would be worth nothing."""
    assert verdicts(AS_FOOTAGE, [film(), film("webm"), noise(), noise("mov"), noise("mkv")]) == [None] * 5
    assert verdicts(AS_PICTURE, [drawn(name) for name in ("PNG", "JPEG", "WEBP")]) == [None] * 3
