"""A finished video is seen at a glance: its first frame, and a sheet of frames from all of it."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from aiprod_components.media.encode import encode_mp4, encode_still
from aiprod_components.media.thumbnails import SHEET_SIDE, spritesheet, thumbnail
from aiprod_components.values import Frames


def climbing(count: int, *, height: int = 64, width: int = 96) -> bytes:
    """Gray that grows lighter from frame to frame, four levels each."""
    levels = (20 + 4 * torch.arange(count)).to(torch.uint8)
    return encode_mp4(Frames(levels[None, :, None, None, None].expand(1, count, height, width, 3).contiguous(), 16.0))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def cells(sheet: Image.Image, *, across: int, down: int) -> list[int]:
    """The number of the frame in each cell."""
    width, height = sheet.width // across, sheet.height // down
    centres = [(x * width + width // 2, y * height + height // 2) for y in range(down) for x in range(across)]
    return [round((int(np.asarray(sheet)[y, x, 0]) - 20) / 4) for x, y in centres]


def test_a_thumbnail_is_the_first_frame_at_most_640_pixels_wide():
    image = opened(thumbnail(climbing(5, height=64, width=1280), "video/mp4"))
    assert (image.format, image.size) == ("WEBP", (640, 32))
    assert abs(image.convert("RGB").getpixel((300, 16))[0] - 20) <= 3  # type: ignore[index]


def test_a_small_video_is_not_enlarged():
    assert opened(thumbnail(climbing(2), "video/mp4")).size == (96, 64)


def test_a_sheet_shows_25_frames_from_the_first_to_the_last():
    sheet = opened(spritesheet(climbing(49), "video/mp4"))
    assert (sheet.format, sheet.size) == ("JPEG", (5 * 96, 5 * 64))
    assert cells(sheet, across=5, down=5) == list(range(0, 49, 2))


@pytest.mark.parametrize(("count", "across", "down"), [(1, 1, 1), (2, 2, 1), (9, 3, 3), (11, 4, 3)])
def test_a_short_video_has_a_cell_for_each_frame(count: int, across: int, down: int):
    sheet = opened(spritesheet(climbing(count), "video/mp4"))
    assert sheet.size == (across * 96, down * 64)
    assert cells(sheet, across=across, down=down)[:count] == list(range(count))


@pytest.mark.parametrize(("height", "width"), [(64, 1280), (1280, 64), (720, 1280)])
def test_a_sheet_is_bounded_whatever_the_aspect(height: int, width: int):
    sheet = opened(spritesheet(climbing(25, height=height, width=width), "video/mp4"))
    assert sheet.width <= 5 * 160 and sheet.height <= SHEET_SIDE
    assert sheet.width / sheet.height == pytest.approx(width / height, rel=0.05)


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_still_is_its_own_only_frame(format: str):
    data = encode_still(torch.full((700, 1400, 3), 90, dtype=torch.uint8), format=format)  # type: ignore[arg-type]
    assert opened(thumbnail(data, f"image/{format}")).size == (640, 320)
    assert opened(spritesheet(data, f"image/{format}")).size == (160, 80)


def test_frames_are_let_go_as_they_are_shown(monkeypatch: pytest.MonkeyPatch):
    """A sheet needs a few frames at a time, however many there are."""
    alive, most = 0, 0

    class Counted(Image.Image):
        def __init__(self) -> None:
            nonlocal alive, most
            super().__init__()
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    data = climbing(49)
    monkeypatch.setattr(Image, "Image", Counted)
    assert opened(spritesheet(data, "video/mp4")).size == (480, 320)
    assert 0 < most < 10


def test_no_torch_is_needed():
    script = "import sys, aiprod_components.media.thumbnails; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
