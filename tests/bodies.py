"""pipeline -> the smallest body that asks for its video, as a client sends it"""

import base64
import io
from typing import Any

import torch
from PIL import Image

from aiprod_components.media.encode import encode_mp4
from aiprod_components.values import Footage, Frames, Picture

NUM_FRAMES, SIDE = 9, 64
SPAN = {"from_seconds": 0.0, "to_seconds": 0.25}  # of those frames, which is what a retake makes anew
FIXED_STEPS = ("distilled", "ic_lora")


def picture(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def footage(width: int = SIDE, height: int = SIDE, *, num_frames: int = NUM_FRAMES) -> bytes:
    """A bright square that moves right over black."""
    pixels = torch.zeros(1, num_frames, height, width, 3, dtype=torch.uint8)
    for frame in range(num_frames):
        pixels[:, frame, 16:32, 8 + frame : 24 + frame] = 200
    return encode_mp4(Frames(pixels, 16.0))


def image_url(data: bytes) -> dict[str, str]:
    return {"image_url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}


def video_url(data: bytes) -> dict[str, str]:
    return {"video_url": f"data:video/mp4;base64,{base64.b64encode(data).decode()}"}


def needed_by(pipeline: str) -> dict[str, Any]:
    """What a pipeline cannot do without, in a client's words."""
    needed: dict[str, dict[str, Any]] = {
        "ic_lora": {"reference_video": video_url(footage())},
        "retake": {"reference_video": video_url(footage()), **SPAN},
        "keyframe_interpolation": {"keyframes": [{"frame": frame, **image_url(picture())} for frame in (0, NUM_FRAMES - 1)]},
    }
    return needed.get(pipeline, {})


def needed_in_process(pipeline: str) -> dict[str, Any]:
    """The same as a request's own fields."""
    needed: dict[str, dict[str, Any]] = {
        "ic_lora": {"reference_video": {"footage": Footage(footage())}},
        "retake": {"reference_video": {"footage": Footage(footage())}, **SPAN},
        "keyframe_interpolation": {"keyframes": [{"frame": frame, "picture": Picture(picture())} for frame in (0, NUM_FRAMES - 1)]},
    }
    return needed.get(pipeline, {})


def body_for(pipeline: str, **fields: Any) -> dict[str, Any]:
    """Small, with the fewest steps that the pipeline can be asked for."""
    steps = {} if pipeline in FIXED_STEPS else {"num_inference_steps": 2}
    size = {"num_frames": NUM_FRAMES, "size": f"{SIDE}x{SIDE}"}
    return {"prompt": "a red ball", "pipeline": pipeline, "seed": 3, **size, **steps, **needed_by(pipeline), **fields}
