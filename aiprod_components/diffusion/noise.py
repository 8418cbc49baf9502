"""seed -> noise, the same on every device"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def draw_noise(shape: tuple[int, ...], *, seed: int, purpose: str) -> Float[Tensor, "..."]:
    """Standard normal noise in float32 on the CPU. One seed gives independent noise for each `purpose`."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    return torch.randn(shape, generator=generator)
