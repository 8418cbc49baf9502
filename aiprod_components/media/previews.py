"""a few small frames -> one moving picture of some kilobytes"""

import io

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

MEDIA_TYPE = "image/webp"
FRAME_MILLISECONDS = 120


def encode_preview(frames: UInt8[Tensor, "T h w 3"]) -> bytes:
    """An animated WebP; a single frame stands still."""
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    file = io.BytesIO()
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0, quality=70, method=0)
    return file.getvalue()
