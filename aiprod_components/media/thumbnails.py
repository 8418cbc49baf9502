"""a finished video or still of ours -> its first frame, small; a sheet of frames from all of it

For bytes that this product made. Uploads are hostile and take another door.
"""

import io
from collections.abc import Iterator
from math import ceil, sqrt

import av
from PIL import Image

THUMBNAIL_TYPE, SPRITESHEET_TYPE = "image/webp", "image/jpeg"
THUMBNAIL_WIDTH = 640
FRAMES_ACROSS = 5  # and down
FRAME_WIDTH, SHEET_SIDE = 160, 2048
QUALITY = 80


def thumbnail(data: bytes, media_type: str) -> bytes:
    """The first frame as WebP, at most 640 pixels wide."""
    return _saved(_within(next(_frames(data, media_type, {0})), width=THUMBNAIL_WIDTH, height=None), "WEBP")


def spritesheet(data: bytes, media_type: str) -> bytes:
    """Up to 25 frames, evenly spaced from the first to the last, row by row as JPEG; one after the other is decoded and let go."""
    wanted = _spaced(_count(data, media_type))
    across = ceil(sqrt(len(wanted)))
    down = ceil(len(wanted) / across)
    sheet: Image.Image | None = None
    for place, frame in enumerate(_frames(data, media_type, set(wanted))):
        small = _within(frame, width=FRAME_WIDTH, height=SHEET_SIDE // FRAMES_ACROSS)
        sheet = sheet or Image.new("RGB", (across * small.width, down * small.height))
        sheet.paste(small, (place % across * small.width, place // across * small.height))
    if sheet is None:
        raise ValueError("a video of ours has a frame, and this one has none")
    return _saved(sheet, "JPEG")


def _spaced(count: int) -> list[int]:
    shown = min(count, FRAMES_ACROSS**2)
    return [round(place * (count - 1) / max(shown - 1, 1)) for place in range(shown)]


def _count(data: bytes, media_type: str) -> int:
    """From the index, which our mp4 has."""
    if media_type != "video/mp4":
        return 1
    with av.open(io.BytesIO(data), "r") as container:
        return container.streams.video[0].frames


def _frames(data: bytes, media_type: str, wanted: set[int]) -> Iterator[Image.Image]:
    if media_type != "video/mp4":
        yield Image.open(io.BytesIO(data)).convert("RGB")
        return
    with av.open(io.BytesIO(data), "r") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield frame.to_image()


def _within(image: Image.Image, *, width: int, height: int | None) -> Image.Image:
    """No larger than that, in its own aspect."""
    scale = min(1.0, width / image.width, (height or image.height) / image.height)
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), Image.Resampling.LANCZOS)


def _saved(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format, quality=QUALITY)
    return file.getvalue()
