"""latents -> latents of another height and width (by numerator / denominator), or of twice the frame rate"""

from dataclasses import dataclass
from math import comb, gcd

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from aiprod_components.errors import InvalidRequestError


@dataclass(frozen=True)
class UpsamplerConfig:
    """Sizes of a latent upsampler, and what it does to latents: twice the height and width unless it says otherwise."""

    latent_channels: int
    width: int
    blocks: int  # residual blocks before, and again after, the change of size
    numerator: int = 2
    denominator: int = 1
    temporal: bool = False  # T latent frames become 2T - 1: the first stands alone, as in the VAE

    def size_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent frames, height and width of the result. Raises InvalidRequestError when a side would not be whole."""
        multiple = self.denominator // gcd(self.numerator, self.denominator)
        for field, side in (("height", height), ("width", width)):
            if side % multiple:
                raise InvalidRequestError(
                    f"latents of height {height} and width {width} have no whole size at {self.numerator}/{self.denominator}; "
                    f"the latent {field} must be a multiple of {multiple}, got {side}",
                    field=field,
                )
        new_height, new_width = (side * self.numerator // self.denominator for side in (height, width))
        return 2 * frames - 1 if self.temporal else frames, new_height, new_width


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(1, width), nn.Conv3d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(1, width), nn.Conv3d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class LatentUpsampler(nn.Module):
    """Residual blocks, channels to space and time, residual blocks; what it predicts is added to the plainly resampled latents."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.steps = (2 if config.temporal else 1, config.numerator, config.numerator)
        copies = self.steps[0] * self.steps[1] * self.steps[2]
        self.enter = nn.Conv3d(config.latent_channels, config.width, 3, padding=1)
        self.before = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.expand = nn.Conv3d(config.width, copies * config.width, 1)
        self.after = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.leave = nn.Conv3d(config.width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T2 H2 W2"]:
        """Raises InvalidRequestError when the result would have no whole size."""
        self.config.size_of(latents.shape[2], latents.shape[3], latents.shape[4])
        st, sh, sw = self.steps
        x = self.expand(self.before(self.enter(latents)))
        x = self._settle(rearrange(x, "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)", st=st, sh=sh, sw=sw))
        plain = self._settle(repeat(latents, "b c t h w -> b c (t st) (h sh) (w sw)", st=st, sh=sh, sw=sw))
        return plain + self.leave(F.silu(self.after(x)))

    def _settle(self, x: Tensor) -> Tensor:
        """What was shuffled or repeated up -> the size asked for."""
        return blur_down(x[:, :, self.steps[0] - 1 :], denominator=self.config.denominator)


def blur_down(x: Float[Tensor, "B C T H W"], *, denominator: int) -> Float[Tensor, "B C T h w"]:
    """One position of each `denominator` in height and width, after a binomial low-pass (Burt & Adelson 1983); borders are repeated.

    Its denominator^2 taps have a deviation of half the stride, and lie as far before as behind the middle of what becomes one position:
    an odd number of taps at an even stride would move the picture.
    """
    if denominator == 1:
        return x
    taps = denominator**2
    kernel = torch.tensor([comb(taps - 1, k) for k in range(taps)], dtype=x.dtype, device=x.device) / 2 ** (taps - 1)
    border = (taps - denominator) // 2
    x = F.pad(x, (border, border, border, border, 0, 0), mode="replicate")
    # A sum, not a convolution: under autocast that would round the latents on the plain path.
    x = (x.unfold(3, taps, denominator) * kernel).sum(dim=-1)
    return (x.unfold(4, taps, denominator) * kernel).sum(dim=-1)
