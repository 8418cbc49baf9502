"""pinned and appended latents -> what each token starts from, and how much of the noise it gets"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """`clean` latents where something is pinned; `freedom` scales each position's noise level (0 pinned, 1 free)."""

    clean: Float[Tensor, "1 C T H W"]
    freedom: Float[Tensor, "1 1 T H W"]


@dataclass(frozen=True)
class Appended:
    """Tokens beside the grid, at places of their own: `freedom` scales their noise level (0 is clean)."""

    values: Float[Tensor, "B N C"]
    positions: Float[Tensor, "B N 3"]
    freedom: Float[Tensor, "B N"]


def pin_latents(free: Float[Tensor, "1 C T H W"], pins: Iterable[tuple[Float[Tensor, "1 C t H W"], int, float]]) -> Conditioning:
    """Puts (latents, first latent frame, strength) over `free`, which is what unpinned positions start from."""
    clean = free.clone()
    freedom = torch.ones_like(free[:, :1])
    for latents, start, strength in pins:
        span = slice(start, start + latents.shape[2])
        clean[:, :, span] = latents
        freedom[:, :, span] = 1 - strength
    return Conditioning(clean, freedom)


def add_noise(
    clean: Float[Tensor, "*shape"], *, noise: Float[Tensor, "*shape"], sigma: Float[Tensor, "*levels"]
) -> Float[Tensor, "*shape"]:
    """The point on the straight path from data to noise."""
    return (1 - sigma) * clean + sigma * noise
