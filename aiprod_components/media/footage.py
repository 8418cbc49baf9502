"""uploaded bytes -> a video that is known to be one -> frames of the asked number, size and rate

The bytes themselves are read in the sandbox, by `probe` and `moments`; what comes from there is numbers and pixels.
"""

from collections.abc import Callable
from fractions import Fraction
from math import isfinite
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.sandbox import CHECKING, READING, Answers, Task, ask, lost
from aiprod_components.values import Footage, FootageShape, exact_rate

FIELD = "reference_video"  # whose footage it is once it was checked
ASPECT_SLACK = 0.02
REMEDY = "make it smaller or shorter, or save it again as mp4"


def check_footage(data: bytes, *, field: str) -> Footage:
    """Reads an upload through and decodes its first frame. Raises InvalidMediaError naming the field and what is accepted."""
    task = footage_check(data, field=field)
    with ask([task], limits=CHECKING) as answers:
        return checked_footage(task, answers)


def footage_check(data: bytes, *, field: str) -> Task:
    return Task("check_footage", field, data, REMEDY, {})


def checked_footage(task: Task, answers: Answers) -> Footage:
    """What the sandbox found. Raises InvalidMediaError."""
    match answers.header(task):
        case {
            "width": int(width),
            "height": int(height),
            "seconds": float(seconds),
            "frame_rate": float(rate),
            "sound_seconds": float(heard),
        }:
            if min(width, height) > 0 and isfinite(seconds) and isfinite(rate) and isfinite(heard):
                return Footage(task.data, FootageShape(width, height, seconds, rate, heard))
        case _:
            pass
    raise lost(task, "a shape that is none")


def probe_footage(footage: Footage) -> FootageShape:
    """What the packets say, not the header. Footage that was checked knows it; other is checked here."""
    return footage.shape or cast(FootageShape, check_footage(footage.data, field=FIELD).shape)


def check_aspect(shape: FootageShape, *, height: int, width: int, field: str) -> None:
    """Raises InvalidMediaError, saying how to crop, when the footage's aspect is more than 2 % from the frame's."""
    wider = Fraction(shape.width * height, shape.height * width)
    if abs(wider - 1) <= ASPECT_SLACK:
        return
    crop = (round(shape.width / wider), shape.height) if wider > 1 else (shape.width, round(shape.height * wider))
    raise InvalidMediaError(
        f"{field} must have the aspect of width x height, {width}x{height}, got {shape.width}x{shape.height}; "
        f"crop it to {crop[0]}x{crop[1]}, or ask for a width of about {round(width * wider)} at this height",
        field=field,
    )


def check_length(shape: FootageShape, *, num_frames: int, frame_rate: float, field: str) -> None:
    """Raises InvalidMediaError when the footage ends more than one frame period early; the message says how many frames it has."""
    rate = exact_rate(frame_rate)
    most = int(shape.seconds * rate + 1e-6) + 1
    if num_frames > most:
        raise InvalidMediaError(
            f"{field} must last {float(num_frames / rate):.2f} s for num_frames {num_frames} at frame_rate {frame_rate:g}, "
            f"got {shape.seconds:.2f} s; ask for num_frames at most {most}, or send a longer video",
            field=field,
        )


def read_footage(
    footage: Footage, *, num_frames: int, height: int, width: int, frame_rate: float, watch: Callable[[], None] = lambda: None
) -> UInt8[Tensor, "1 T H W 3"]:
    """Turns the footage upright, takes for each moment the frame nearest to it in time and resizes it (Lanczos) to exactly the asked size.

    Raises InvalidMediaError when the footage is shorter than asked, or damaged further in. `watch` is called at every frame, and may
    raise to end the work.
    """
    check_length(probe_footage(footage), num_frames=num_frames, frame_rate=frame_rate, field=FIELD)
    asked = {"num_frames": num_frames, "height": height, "width": width, "period": str(1 / exact_rate(frame_rate))}
    task = Task("read_footage", FIELD, footage.data, REMEDY, asked)
    clip = np.empty((num_frames, height, width, 3), np.uint8)
    filled = 0
    with ask([task], limits=READING) as answers:
        while filled < num_frames:
            times = answers.header(task).get("times")
            if not isinstance(times, int) or not 0 < times <= num_frames - filled:
                raise lost(task, "more frames than were asked for")
            answers.fill(task, clip[filled].reshape(-1).data)
            clip[filled + 1 : filled + times] = clip[filled]
            filled += times
            watch()
    return torch.from_numpy(clip)[None]
