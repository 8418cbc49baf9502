"""video file -> frames"""

import io

import av
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor


def decode_video(data: bytes) -> UInt8[Tensor, "T H W 3"]:
    """Every frame of a video that this product made. Uploads are hostile and take another door."""
    with av.open(io.BytesIO(data), "r") as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
