"""latents -> small frames: a linear guess at what they show, for those who watch them come into being"""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class PreviewConfig:
    """`patch` is how many pixels of a preview's side a latent position has; an even number."""

    latent_channels: int
    patch: int


class LatentPreview(nn.Module):
    """A patch of pixels around each corner where four latent positions meet, from those four: so no pixel sees its own position alone.

    A latent frame of several video frames shows one of them.
    """

    def __init__(self, config: PreviewConfig) -> None:
        super().__init__()
        self.config = config
        self.corners = nn.Conv2d(config.latent_channels, 3 * config.patch**2, 2)

    def forward(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B 3 T H W"]:
        """Frames in [0, 1], about."""
        patch, half = self.config.patch, self.config.patch // 2
        patches = self.corners(with_border(latents))
        pixels = rearrange(patches, "(b t) (c p q) h w -> b c t (h p) (w q)", b=len(latents), p=patch, q=patch)
        return pixels[..., half:-half, half:-half]


def with_border(latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "N C H W"]:
    """Each latent frame with its border repeated once, so that every pixel lies between four positions."""
    return F.pad(rearrange(latents, "b c t h w -> (b t) c h w"), (1, 1, 1, 1), mode="replicate")
