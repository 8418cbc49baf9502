"""real pictures -> pictures that lie, swell or are something else: each made here, byte by byte"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

SCRIPT = b"<script>alert(1)</script>"


def drawn(format: str, *, width: int = 48, height: int = 32, **options: Any) -> bytes:
    """A real picture with some detail, so that a change of a byte can show."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, *, size: int | None = None) -> bytes:
    """Of a PNG; its size may be a lie."""
    return struct.pack(">I", len(data) if size is None else size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 8, height: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@cache
def zeros(size: int) -> bytes:
    """Many noughts, compressed a thousand times."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])


PIXELS = chunk(b"IDAT", zlib.compress(bytes(25 * 8)))


def with_comment(text: bytes) -> bytes:
    """A JPEG that says something."""
    data = drawn("JPEG")
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]


def of_size(width: int, height: int, *, data: bytes) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def scans(count: int, *, width: int, height: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, each time over all the picture."""
    data = of_size(width, height, data=drawn("JPEG", progressive=True))
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def canvas(width: int, height: int) -> bytes:
    """A WebP whose canvas is far larger than what is on it."""
    data = bytearray(animated("WEBP", frames=2))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


def lossless(width: int, height: int) -> bytes:
    """A WebP whose only picture claims a size."""
    data = bytearray(drawn("WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


def animated(format: str, *, frames: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (level * 97 % 256, level * 57 % 256, 0)) for level in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, format, save_all=True, append_images=pictures[1:], duration=20)
    return file.getvalue()


def and_zip() -> bytes:
    """A PNG that is an archive, too."""
    file = io.BytesIO()
    file.write(drawn("PNG"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("index.html", SCRIPT)
    return file.getvalue()


def with_exif(offset: int) -> bytes:
    """An EXIF whose directory is its own successor, or lies somewhere else."""
    tag = struct.pack("<HHII", 0x8769, 4, 1, offset)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + tag + struct.pack("<I", 8)
    return drawn("JPEG", exif=exif)


def with_tags(count: int) -> bytes:
    """An EXIF of tags that each say that they are somewhere beyond the end, which a reader may warn of one by one."""
    tags = b"".join(struct.pack("<HHII", number % 65_536, 4, 100, 2**31 + number) for number in range(count))
    return png(chunk(b"eXIf", b"II*\0" + struct.pack("<IH", 8, count) + tags + bytes(4)), PIXELS)


def saved(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, format)
    return file.getvalue()


SVG = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
PSD = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(12)

# What it is called -> how it is made, and what the door says to it; None where it is a picture all the same.
PICTURES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a PNG of 900 million pixels": (lambda: png(PIXELS, width=30_000, height=30_000), "make it smaller"),
    "a PNG of 4 billion a side": (lambda: png(PIXELS, width=2**31 - 1, height=2**31 - 1), "make it smaller"),
    "a PNG of nothing": (lambda: png(PIXELS, width=0, height=0), "picture"),
    "a PNG of 8K with one line of it": (lambda: png(PIXELS, width=7680, height=4320), "damaged"),
    "a text of 100 MB in a PNG": (lambda: png(chunk(b"zTXt", b"a\0\0" + zeros(100 << 20)), PIXELS), "damaged"),
    "another, in Unicode": (lambda: png(chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(100 << 20)), PIXELS), "damaged"),
    "a profile of 100 MB in a PNG": (lambda: png(chunk(b"iCCP", b"a\0\0" + zeros(100 << 20)), PIXELS), "damaged"),
    "pixels of 100 MB for 64 places": (lambda: png(chunk(b"IDAT", zeros(100 << 20))), None),
    "a PNG of 100,000 words": (lambda: png(chunk(b"tEXt", b"a\0b") * 100_000, PIXELS), None),
    "a chunk of 4 GB": (lambda: png(chunk(b"IDAT", b"abc", size=2**32 - 1)), "damaged"),
    "a PNG without pixels": (png, "damaged"),
    "an animated PNG of 2000 frames": (lambda: animated("PNG", frames=2000), None),
    "a PNG and an archive": (and_zip, None),
    "a JPEG of 4 billion pixels": (lambda: of_size(65_500, 65_500, data=drawn("JPEG")), "make it smaller"),
    "a JPEG of 8K with a corner of it": (lambda: of_size(7680, 4320, data=drawn("JPEG")), None),
    "a JPEG of 20,000 scans": (lambda: scans(20_000, width=7680, height=4320), "at most 100 scans"),
    "a JPEG with a script": (lambda: with_comment(SCRIPT), None),
    "a JPEG that begins as a page": (lambda: with_comment(b"<html>" + SCRIPT + b"<!--"), None),
    "an EXIF in a circle": (lambda: with_exif(8), None),
    "an EXIF of 65,000 faults": (lambda: with_tags(65_000), None),
    "an EXIF beyond the end": (lambda: with_exif(2**31), None),
    "a WebP of 268 million pixels": (lambda: canvas(16_383, 16_383), "make it smaller"),
    "a WebP of 169 million pixels": (lambda: canvas(13_000, 13_000), "make it smaller"),
    "a lossless WebP of 268 million pixels": (lambda: lossless(16_383, 16_383), "make it smaller"),
    "a lossless WebP of 8K with a corner of it": (lambda: lossless(7680, 4320), "damaged"),
    "an animated WebP of 1000 frames": (lambda: animated("WEBP", frames=1000), None),
    "a GIF": (lambda: saved("GIF"), "is not a picture"),
    "a GIF in a PNG's place": (lambda: b"\x89PNG\r\n\x1a\n" + saved("GIF"), "picture"),
    "a TIFF": (lambda: saved("TIFF"), "is not a picture"),
    "a BMP": (lambda: saved("BMP"), "is not a picture"),
    "an ICO": (lambda: saved("ICO"), "is not a picture"),
    "an EPS": (lambda: saved("EPS"), "is not a picture"),
    "a PDF": (lambda: saved("PDF"), "is not a picture"),
    "a JPEG 2000": (lambda: saved("JPEG2000"), "is not a picture"),
    "a PSD": (lambda: PSD, "is not a picture"),
    "an SVG that names a file": (lambda: SVG, "is not a picture"),
    "a page": (lambda: b"<html>" + SCRIPT, "is not a picture"),
}
