"""real videos -> videos that lie, swell, point elsewhere or are something else: each made here, box by box"""

import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np

from tests.media.clips import corner, encoded, gray

HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts")  # boxes that hold nothing but boxes
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
MANIFEST = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file:///etc/passwd</BaseURL></MPD>'
MOST = 2**31 - 1


def box(kind: bytes, payload: bytes, *, size: int | None = None) -> bytes:
    """Of an mp4; its size may be a lie."""
    return struct.pack(">I", len(payload) + 8 if size is None else size) + kind + payload


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Their kinds and payloads, one after the other."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def changed(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An mp4 with another payload in the boxes of a kind; their holders grow or shrink with them."""

    def rewritten(name: bytes, payload: bytes) -> bytes:
        inner = b"".join(rewritten(*each) for each in boxes(payload)) if name in HOLDERS else payload
        return box(name, change(inner) if name == kind else inner)

    return b"".join(rewritten(name, payload) for name, payload in boxes(data))


def table(*numbers: int) -> bytes:
    """A payload of 32 bits each, after version and flags."""
    return struct.pack(f">I{len(numbers)}I", 0, *numbers)


def lying(kind: bytes, *numbers: int) -> Callable[[], bytes]:
    return lambda: changed(film(), kind, lambda _: table(*numbers))


def element(name: bytes, payload: bytes, *, size: int | None = None) -> bytes:
    """Of a Matroska file; its size may be a lie."""
    return name + (b"\x01" + (len(payload) if size is None else size).to_bytes(7)) + payload


EBML, SEGMENT, TRACKS, CLUSTER, ATTACHMENTS = b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x16T\xaek", b"\x1fC\xb6u", b"\x19A\xa4i"
HEADER = element(EBML, element(b"\x42\x82", b"webm"))


@cache
def film(container: str = "mp4", *, frames: int = 5) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return encoded(corner(frames), Path(folder), container=container)


@cache
def noise(container: str = "mp4", *, frames: int = 6) -> bytes:
    """Of many bytes, a change of which can show."""
    with tempfile.TemporaryDirectory() as folder:
        return encoded(np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8), Path(folder), container=container)


@cache
def huge() -> bytes:
    """One frame of 8K."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "40"})
            stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(gray([40], height=4320, width=7680)[0], format="rgb24")))
            file.mux(stream.encode(None))
        return path.read_bytes()


def with_tracks(count: int) -> bytes:
    """The only track, so many times."""
    return changed(film(), b"moov", lambda moov: b"".join(box(*each) * (count if each[0] == b"trak" else 1) for each in boxes(moov)))


def elsewhere(path: str) -> bytes:
    """An mp4 whose pictures are in another file: a QuickTime alias, whose last part is an absolute path."""
    name = path.encode()
    record = bytes(4 + 150) + struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
    return changed(film(), b"dref", lambda _: table(1) + box(b"alis", record))


def small_in_the_header() -> bytes:
    """A stream of 8208 x 16 that the file says is 64 x 48."""
    with tempfile.TemporaryDirectory() as folder:
        wide = encoded(gray([40], height=16, width=8208), Path(folder))
    return changed(wide, b"stsd", lambda stsd: stsd[:40] + struct.pack(">HH", 64, 48) + stsd[44:])


def without_pictures() -> bytes:
    """Whose media data are noughts."""
    return changed(noise(), b"mdat", lambda mdat: bytes(len(mdat)))


def fragments(count: int) -> bytes:
    run = box(b"trun", struct.pack(">II", 0, 0))
    piece = box(b"moof", box(b"mfhd", table(1)) + box(b"traf", box(b"tfhd", table(1)) + run))
    return film() + piece * count


def nested(count: int) -> bytes:
    inner = b""
    for _ in range(count):
        inner = box(b"udta", inner)
    return film() + inner


# What it is called -> how it is made, and what the door says to it; None where it is a video all the same.
VIDEOS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a playlist": (lambda: PLAYLIST, "is not a video"),
    "a playlist behind an mp4's first box": (lambda: box(b"ftyp", b"isom" + PLAYLIST), "video"),
    "an mp4 with a playlist in it": (lambda: film() + box(b"free", PLAYLIST), None),
    "a playlist for media data": (lambda: changed(film(), b"mdat", lambda mdat: PLAYLIST.ljust(len(mdat))), "damaged"),
    "a DASH manifest": (lambda: MANIFEST, "is not a video"),
    "a script of concat": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "is not a video"),
    "a session description": (lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "is not a video"),
    "an mp4 whose pictures are elsewhere": (lambda: elsewhere("/etc/passwd"), "damaged"),
    "an mp4 and a page": (lambda: film() + box(b"free", b"<html><script>alert(1)</script>"), None),
    "a page that begins as an mp4": (lambda: box(b"ftyp", b"<script>alert(1)</script>"), "video"),
    "one frame of 8K": (huge, None),
    "8208 pixels that the header calls 64": (small_in_the_header, "8192"),
    "an edit list to the end of time": (lying(b"elst", 1, MOST, MOST, 0x10000), "damaged"),
    "an edit list of millions": (lying(b"elst", MOST, 1, 0, 0x10000), "240 a second"),
    "an edit list that runs backwards": (lying(b"elst", 2, 1000, 1 << 31, 0xFFFF0000, 1000, 0, 0x10000), None),
    "more sizes than samples": (lying(b"stsz", 0, 1000, 10), "damaged"),
    "2 billion samples of one byte": (lying(b"stsz", 1, MOST), "at most 2880000 entries"),
    "2 million samples of one byte": (lying(b"stsz", 1, 2_800_000), "damaged"),
    "2 billion samples in a chunk": (lying(b"stsc", 1, 1, MOST, 1), None),
    "2 billion chunks": (lying(b"stco", MOST, 48), None),
    "chunks beyond the end": (lying(b"stco", 1, MOST), "damaged"),
    "2 billion times": (lying(b"stts", 1, MOST, 1), "14400 frames"),
    "times that take for ever": (lying(b"stts", 1, 5, MOST), "60 s"),
    "2 billion shifts in time": (lying(b"ctts", 1, MOST, 1), None),
    "2 billion key frames": (lying(b"stss", MOST, 1), "damaged"),
    "no sample at all": (lying(b"stsz", 0, 0), "damaged"),
    "10,000 tracks": (lambda: with_tracks(10_000), "more than 50 tracks"),
    "a box of 4 GB": (lambda: film() + box(b"free", b"", size=2**32 - 1), None),
    "a header of 4 GB": (lambda: box(b"ftyp", b"isom") + box(b"moov", b"", size=2**32 - 1), "video"),
    "20,000 boxes within boxes": (lambda: nested(20_000), "damaged"),
    "100,000 empty fragments": (lambda: fragments(100_000), "damaged"),
    "an mp4 of noughts": (without_pictures, "damaged"),
    "an mp4 that is a QuickTime film of 1992": (lambda: box(b"wide", b"") + box(b"mdat", b"abc") + box(b"moov", b""), "video"),
    "an EBML header of 72 petabytes": (lambda: EBML + b"\x01" + b"\xff" * 6 + b"\xfe" + b"webm", "damaged"),
    "a segment of 72 petabytes": (lambda: HEADER + element(SEGMENT, b"", size=2**56 - 2), "video"),
    "an attachment of 72 petabytes": (lambda: HEADER + element(SEGMENT, element(ATTACHMENTS, b"", size=2**56 - 2)), "video"),
    "a million empty clusters": (lambda: HEADER + element(SEGMENT, element(CLUSTER, b"") * 1_000_000), "video"),
    "10,000 tracks of a webm": (lambda: HEADER + element(SEGMENT, element(TRACKS, element(b"\xae", b"") * 10_000)), "video"),
    "elements within elements": (lambda: HEADER + SEGMENT + (b"\x01\xff\xff\xff\xff\xff\xff\xff" + CLUSTER) * 10_000, "video"),
}
