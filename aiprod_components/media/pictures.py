"""uploaded bytes -> a picture that is known to be one -> a frame of the asked size

The bytes themselves are read in the sandbox, by `raster`; what comes from there is pixels.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from aiprod_components.media.raster import MAX_PIXELS
from aiprod_components.media.sandbox import CHECKING, Answers, Task, ask, lost
from aiprod_components.values import Picture

REMEDY = "make it smaller, or save it again as PNG or JPEG"


def check_picture(data: bytes, *, field: str) -> Picture:
    """Decodes an upload. Raises InvalidMediaError naming the field and what is accepted."""
    task = picture_check(data, field=field)
    with ask([task], limits=CHECKING) as answers:
        return checked_picture(task, answers)


def picture_check(data: bytes, *, field: str) -> Task:
    return Task("check_picture", field, data, REMEDY, {})


def checked_picture(task: Task, answers: Answers) -> Picture:
    """What the sandbox found. Raises InvalidMediaError, also when this one and those before it are too much together."""
    answers.header(task)
    return Picture(task.data)


def read_picture(picture: Picture, *, height: int, width: int) -> UInt8[Tensor, "1 1 H W 3"]:
    """Turns the picture upright, crops its middle to the frame's aspect and resizes it (Lanczos). What is transparent becomes white."""
    task = Task("read_picture", "image", picture.data, REMEDY, {"height": height, "width": width})
    pixels = np.empty((height, width, 3), np.uint8)
    with ask([task], limits=CHECKING) as answers:
        answers.header(task)
        answers.fill(task, pixels.reshape(-1).data)
    return torch.from_numpy(pixels)[None, None]


def read_whole_picture(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """The picture upright, in its own size. What is transparent becomes white."""
    task = Task("read_whole_picture", "image", picture.data, REMEDY, {})
    with ask([task], limits=CHECKING) as answers:
        header = answers.header(task)
        height, width = int(header["height"]), int(header["width"])
        if not 0 < height * width <= MAX_PIXELS:
            raise lost(task, "a size that no picture has")
        pixels = np.empty((height, width, 3), np.uint8)
        answers.fill(task, pixels.reshape(-1).data)
    return pixels


def resized_picture(pixels: UInt8[np.ndarray, "h w 3"], *, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """Its middle in the frame's aspect, at the frame's size (bilinear, filtered where it becomes smaller)."""
    fitted = ImageOps.fit(Image.fromarray(pixels), (width, height), method=Image.Resampling.BILINEAR)
    return np.array(fitted)
