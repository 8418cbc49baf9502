"""A still holds every byte of its frame, and a Video can carry it."""

import io
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from aiprod_components.media.encode import STILL_TYPES, encode_still
from aiprod_components.values import Video, VideoShape


@pytest.mark.parametrize("format", ["png", "webp"])
def test_every_byte_of_a_frame_can_be_had_again(format: Literal["png", "webp"]):
    pixels = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    image = Image.open(io.BytesIO(encode_still(pixels, format=format)))
    assert (image.format, image.mode) == (format.upper(), "RGB")
    torch.testing.assert_close(torch.from_numpy(np.array(image)), pixels)


def test_equal_frames_make_equal_stills():
    pixels = torch.arange(48 * 64 * 3).remainder(251).to(torch.uint8).reshape(48, 64, 3)
    assert encode_still(pixels, format="png") == encode_still(pixels.clone(), format="png")


def test_a_still_can_be_cut_out_of_a_clip():
    clip = torch.randint(0, 256, (1, 5, 48, 64, 3), dtype=torch.uint8)
    image = Image.open(io.BytesIO(encode_still(clip[0, 3, :, ::2], format="png")))
    torch.testing.assert_close(torch.from_numpy(np.array(image)), clip[0, 3, :, ::2])


@pytest.mark.parametrize(("format", "media_type"), [("png", "image/png"), ("webp", "image/webp")])
def test_a_video_value_carries_a_still(format: Literal["png", "webp"], media_type: str):
    data = encode_still(torch.zeros(8, 8, 3, dtype=torch.uint8), format=format)
    assert Image.MIME[format.upper()] == media_type == Video(data, VideoShape(1, 8, 8, 1.0), "digest", STILL_TYPES[format]).media_type
