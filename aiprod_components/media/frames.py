"""byte frames <-> unit frames"""

import hashlib

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.values import Frames


def to_unit(pixels: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 3 T H W"]:
    """Bytes -> [0, 1], channels first but last in memory, which convolutions like best."""
    return rearrange(pixels, "b t h w c -> b c t h w").float().div_(255).contiguous(memory_format=torch.channels_last_3d)


def to_bytes(unit: Float[Tensor, "B 3 T H W"]) -> UInt8[Tensor, "B T H W 3"]:
    """[0, 1] -> bytes, rounded; what lies outside is clipped."""
    return rearrange(unit.mul(255).round().clamp(0, 255).to(torch.uint8), "b c t h w -> b t h w c").contiguous()


def digest_of(frames: Frames) -> str:
    """SHA-256 of the raw frames: equal exactly when every byte of every frame is."""
    return hashlib.sha256(frames.pixels.numpy().tobytes()).hexdigest()
