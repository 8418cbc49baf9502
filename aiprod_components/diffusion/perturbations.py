"""what a pass leaves out -> which blocks of which row keep their self-attention"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Perturbation:
    """A part of the network that a pass goes without: self-attention in these attention blocks (counted from 0).

    Spatiotemporal skip guidance (Hyung et al. 2024) steers away from what is predicted without it.
    """

    skip_self_attention: tuple[int, ...] = ()


def kept_self_attention(perturbations: Sequence[Perturbation], *, blocks: int) -> Float[Tensor, "B K"]:
    """One row of the batch each: 1 where a block's self-attention counts, 0 where it is left out."""
    kept = torch.ones(len(perturbations), blocks)
    for row, perturbation in enumerate(perturbations):
        kept[row, list(perturbation.skip_self_attention)] = 0.0
    return kept
