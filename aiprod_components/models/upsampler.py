"""latents -> latents of twice the height and width"""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class UpsamplerConfig:
    """Sizes of a latent upsampler."""

    latent_channels: int
    width: int
    blocks: int  # residual blocks before, and again after, the doubling


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(1, width), nn.Conv3d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(1, width), nn.Conv3d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class LatentUpsampler(nn.Module):
    """Residual blocks, channels to space, residual blocks; what it predicts is added to the nearest-neighbour upsampling."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Conv3d(config.latent_channels, config.width, 3, padding=1)
        self.before = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.expand = nn.Conv3d(config.width, 4 * config.width, 1)
        self.after = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.leave = nn.Conv3d(config.width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H2 W2"]:
        x = self.expand(self.before(self.enter(latents)))
        x = rearrange(x, "b (c sh sw) t h w -> b c t (h sh) (w sw)", sh=2, sw=2)
        return repeat(latents, "b c t h w -> b c t (h sh) (w sw)", sh=2, sw=2) + self.leave(F.silu(self.after(x)))
