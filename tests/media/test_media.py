"""Pictures are checked before they are believed; videos are what a browser plays."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.decode import decode_video
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.frames import digest_of, to_bytes, to_unit
from aiprod_components.media.pictures import check_picture, read_picture
from aiprod_components.media.raster import MAX_PIXELS_TOGETHER
from aiprod_components.media.uploads import check_media
from aiprod_components.values import Frames, Picture, exact_rate


def png(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def with_exif(exif: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", exif=exif)
    return file.getvalue()


def smooth_clip() -> Frames:
    ramp = torch.linspace(0, 255, 64).to(torch.uint8)
    frames = torch.stack([ramp.roll(2 * t).expand(48, 64) for t in range(9)])
    return Frames(frames[None, ..., None].expand(1, 9, 48, 64, 3).contiguous(), 16.0)


def test_a_video_is_h264_that_a_browser_plays_while_it_loads():
    data = encode_mp4(smooth_clip())
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate, stream.width, stream.height) == (9, 16, 64, 48)
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("rate", "exact"), [(23.976, "24000/1001"), (29.97, "30000/1001"), (24.0, "24"), (12.5, "25/2")])
def test_a_frame_rate_is_stored_as_the_trade_means_it(rate: float, exact: str):
    assert exact_rate(rate) == Fraction(exact)


def test_what_is_encoded_can_be_seen_again():
    clip = smooth_clip()
    error = (decode_video(encode_mp4(clip)).float() - clip.pixels[0].float()).abs().mean()
    assert error < 3


def test_bytes_survive_the_way_to_unit_frames_and_back():
    pixels = torch.randint(0, 256, (1, 2, 3, 5, 3), dtype=torch.uint8)
    torch.testing.assert_close(to_bytes(to_unit(pixels)), pixels)


def test_a_digest_changes_with_any_byte():
    clip = smooth_clip()
    changed = clip.pixels.clone()
    changed[0, 3, 10, 10, 1] += 1
    assert digest_of(clip) != digest_of(Frames(changed, 16.0))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_cropped_to_its_middle_and_resized(format: str):
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    frame = read_picture(check_picture(png(image, format), field="image"), height=32, width=32)
    assert frame.shape == (1, 1, 32, 32, 3)
    assert frame[0, 0, 16, 16, 2] > 200 and frame[..., 0].float().mean() < 30


def test_a_picture_is_turned_as_its_camera_held_it():
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: left becomes top
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    frame = read_picture(Picture(file.getvalue()), height=40, width=20)
    assert frame[0, 0, 5, 10, 0] > 200 and frame[0, 0, 35, 10, 0] < 50


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)), (156, 156, 156)),
        (Image.new("RGBA", (8, 8), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("LA", (8, 8), (80, 255)), (80, 80, 80)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
    ],
    ids=["16 bits", "transparent", "gray with alpha", "four inks"],
)
def test_every_kind_of_pixel_becomes_the_colour_that_is_seen(image: Image.Image, shown: tuple[int, int, int]):
    data = png(image, "JPEG" if image.mode == "CMYK" else "PNG")
    pixel = read_picture(check_picture(data, field="image"), height=8, width=8)[0, 0, 4, 4]
    assert (pixel.int() - torch.tensor(shown)).abs().max() <= 2


@pytest.mark.parametrize(
    ("data", "way_out"),
    [
        (b"", "is not a picture; send one of PNG"),
        (b"just some text", "is not a picture; send one of PNG"),
        (png(Image.effect_noise((64, 64), 50))[:-300], "damaged"),
        (png(Image.new("L", (30_000, 10))), "at most 8192 pixels a side"),
        (png(Image.new("L", (16_000, 16_000))), "make it smaller"),
        (with_exif(b"garbage!!"), "damaged"),
        (with_exif(b"II*\0"), "damaged"),
        (b"GIF89a" + png(Image.new("L", (8, 8)), "GIF")[6:], "is not a picture; send one of PNG"),
    ],
)
def test_what_is_not_a_picture_is_refused_with_the_way_out(data: bytes, way_out: str):
    with pytest.raises(InvalidMediaError, match=way_out) as caught:
        check_picture(data, field="input_reference")
    assert caught.value.field == "input_reference"


def test_the_same_bytes_are_one_picture_and_all_together_are_bounded():
    large, other, third = (png(Image.new("L", (width, 4000), level)) for width, level in ((8000, 0), (8000, 7), (4000, 9)))
    copies = {f"b{index}": bytes(bytearray(large)) for index in range(9)}
    seen = check_media(pictures={"a": large, **copies, "c": other}, footage={}).pictures
    assert all(seen[name] is seen["a"] for name in copies) and seen["c"] == Picture(other)
    with pytest.raises(InvalidMediaError, match=f"d: .*at most {MAX_PIXELS_TOGETHER} pixels together") as caught:
        check_media(pictures={"a": large, **copies, "c": other, "d": third}, footage={})
    assert caught.value.field == "d"


def test_every_level_of_16_bits_becomes_one_of_8():
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    frame = read_picture(Picture(png(Image.fromarray(levels))), height=256, width=256)
    assert (frame[0, 0].numpy() == (levels // 257)[..., None]).all()


def test_a_picture_of_several_is_its_first():
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    assert read_picture(Picture(file.getvalue()), height=16, width=16)[0, 0, 8, 8].tolist()[0] > 200
