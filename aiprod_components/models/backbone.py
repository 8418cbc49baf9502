"""noisy latent tokens, a noise level per token, positions, prompt embeds -> velocity

HybridBackbone: attention blocks gather what belongs together, convolution blocks then draw local detail. Pre-norm, a
weighted skip around every block, and one shared timestep MLP with a table per block (AdaLN-single, Chen et al. 2023).
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aiprod_components.diffusion.conditioning import Appended
from aiprod_components.kernels.attention import attention


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a backbone; periods are wavelengths of the rotary positions, in seconds and in pixels."""

    latent_channels: int
    width: int
    heads: int
    attention_blocks: int
    convolution_blocks: int
    text_width: int = 256
    feed_forward: int = 4  # times the width
    skip: float = 0.9
    # shortest and longest rotary period: in seconds, and in pixels
    periods: tuple[float, float] = (0.25, 20.0)
    pixel_periods: tuple[float, float] = (32.0, 4096.0)


@dataclass(frozen=True)
class Tokens:
    """Latents as tokens. The first T·H·W are the grid in order; any after them are appended conditioning.

    `sigmas` is each token's own noise level (0 is clean), `positions` its centre: seconds, pixels down, pixels right.
    """

    values: Float[Tensor, "B N C"]
    sigmas: Float[Tensor, "B N"]
    positions: Float[Tensor, "B N 3"]
    grid: tuple[int, int, int]

    def to(self, device: torch.device) -> "Tokens":
        return replace(self, values=self.values.to(device), sigmas=self.sigmas.to(device), positions=self.positions.to(device))


def tokens_of(
    latents: Float[Tensor, "B C T H W"],
    *,
    levels: Float[Tensor, "B 1 T H W"],
    positions: Float[Tensor, "N 3"],
    guides: Appended | None = None,
) -> Tokens:
    """Latents, each position at its noise level and place, and beside the grid the guides, whose `freedom` is their noise level."""
    tokens = Tokens(
        values=rearrange(latents, "b c t h w -> b (t h w) c"),
        sigmas=rearrange(levels, "b 1 t h w -> b (t h w)"),
        positions=positions.expand(len(latents), -1, -1),
        grid=(latents.shape[2], latents.shape[3], latents.shape[4]),
    )
    if guides is None:
        return tokens
    return replace(
        tokens,
        values=torch.cat([tokens.values, guides.values], dim=1),
        sigmas=torch.cat([tokens.sigmas, guides.freedom], dim=1),
        positions=torch.cat([tokens.positions, guides.positions], dim=1),
    )


@dataclass(frozen=True)
class Context:
    """What the whole clip is conditioned on: the prompt, and the video's height, width (pixels) and frame rate."""

    prompt_embeds: Float[Tensor, "B S E"]
    mask: Bool[Tensor, "B S"]
    size: Float[Tensor, "B 3"]


class Rotary(nn.Module):
    """Rotary positions over (seconds, pixels down, pixels right): any fraction is a valid position (Su et al. 2021)."""

    frequencies: Tensor

    def __init__(self, head_width: int, config: BackboneConfig) -> None:
        super().__init__()
        space = head_width // 6
        time = head_width // 2 - 2 * space
        axes = [(time, config.periods), (space, config.pixel_periods), (space, config.pixel_periods)]
        frequencies = torch.zeros(head_width // 2, 3)
        row = 0
        for axis, (count, (shortest, longest)) in enumerate(axes):
            exponents = torch.linspace(0, 1, count)
            frequencies[row : row + count, axis] = 2 * math.pi / (shortest * (longest / shortest) ** exponents)
            row += count
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Float[Tensor, "B N 3"]) -> tuple[Tensor, Tensor]:
        angles = (positions.float() @ self.frequencies.T).unsqueeze(2)
        return torch.cos(angles), torch.sin(angles)


def rotate(x: Float[Tensor, "B N H D"], turn: tuple[Tensor, Tensor]) -> Float[Tensor, "B N H D"]:
    cos, sin = (part.to(x.dtype) for part in turn)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def plain_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b s (three n d) -> three b s n d", three=3, n=self.heads)
        attended = attention(rotate(self.q_norm(q), turn), rotate(self.k_norm(k), turn), v)
        return self.out(rearrange(attended, "b s n d -> b s (n d)"))


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        q = rearrange(self.q(self.norm(x)), "b s (n d) -> b s n d", n=self.heads)
        k, v = rearrange(self.kv(text), "b s (two n d) -> two b s n d", two=2, n=self.heads)
        return self.out(rearrange(attention(self.q_norm(q), self.k_norm(k), v, mask=mask), "b s n d -> b s (n d)"))


class FeedForward(nn.Sequential):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__(nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width))


class Modulation(nn.Module):
    """A block's own table on top of the shared timestep embedding: shift, scale and gate for its two halves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, width) * width**-0.5)

    def forward(self, time: Float[Tensor, "B N 6 W"]) -> tuple[Tensor, ...]:
        return (time + self.table).unbind(dim=2)


class Text(NamedTuple):
    """The prompt at the backbone's width."""

    text: Float[Tensor, "B S W"]
    mask: Bool[Tensor, "B S"]


class AttentionBlock(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.skip = config.skip
        self.modulation = Modulation(config.width)
        self.self_attention = SelfAttention(config.width, config.heads)
        self.cross_attention = CrossAttention(config.width, config.heads)
        self.feed_forward = FeedForward(config.width, config.feed_forward)

    def forward(self, x: Tensor, time: Tensor, turn: tuple[Tensor, Tensor], prompt: Text, kept: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(time)
        gathered = gate1 * self.self_attention(plain_norm(x) * (1 + scale1) + shift1, turn)
        h = x + (gathered if kept is None else gathered * kept[:, None, None])
        h = h + self.cross_attention(h, prompt.text, prompt.mask)
        h = h + gate2 * self.feed_forward(plain_norm(h) * (1 + scale2) + shift2)
        return self.skip * x + (h - x)


class ConvolutionBlock(nn.Module):
    """A 3x3x3 convolution over the grid, then a feed-forward. Appended tokens have no neighbours and skip the convolution."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.skip = config.skip
        self.modulation = Modulation(config.width)
        self.convolution = nn.Conv3d(config.width, config.width, 3, padding=1)
        self.feed_forward = FeedForward(config.width, config.feed_forward)

    def forward(self, x: Tensor, time: Tensor, grid: tuple[int, int, int]) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(time)
        local = self._convolve(plain_norm(x) * (1 + scale1) + shift1, grid)
        h = x + gate1 * local
        h = h + gate2 * self.feed_forward(plain_norm(h) * (1 + scale2) + shift2)
        return self.skip * x + (h - x)

    def _convolve(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        t, h, w = grid
        size = t * h * w
        volume = rearrange(x[:, :size], "b (t h w) c -> b c t h w", t=t, h=h, w=w)
        tokens = rearrange(self.convolution(volume), "b c t h w -> b (t h w) c")
        return F.pad(F.silu(tokens), (0, 0, 0, x.shape[1] - size))


class TimeEmbedding(nn.Module):
    """Noise level of a token, and the video's size and frame rate -> the modulation that all blocks share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = 128
        self.sigma = nn.Sequential(nn.Linear(self.features, width), nn.SiLU(), nn.Linear(width, width))
        self.size = nn.Sequential(nn.Linear(3 * self.features, width), nn.SiLU(), nn.Linear(width, width))
        self.to_modulation = nn.Linear(width, 6 * width)

    def forward(self, sigmas: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        sized = self.size(self._waves(torch.log2(size) * 100).flatten(start_dim=1))
        embedded = F.silu(self.sigma(self._waves(sigmas * 1000)) + sized[:, None])
        return embedded, rearrange(self.to_modulation(embedded), "b n (six w) -> b n six w", six=6)

    def _waves(self, x: Tensor) -> Tensor:
        """Sinusoids of `x` (about 0 to 1000) at geometric frequencies (Vaswani et al. 2017)."""
        half = self.features // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        angles = x.float()[..., None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class HybridBackbone(nn.Module):
    """Predicts the velocity (noise - data) of every grid token."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.rotary = Rotary(width // config.heads, config)
        self.time = TimeEmbedding(width)
        self.text = nn.Linear(config.text_width, width)
        self.enter = nn.Linear(config.latent_channels, width)
        self.attention_blocks = nn.ModuleList([AttentionBlock(config) for _ in range(config.attention_blocks)])
        self.convolution_blocks = nn.ModuleList([ConvolutionBlock(config) for _ in range(config.convolution_blocks)])
        self.leave_modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, config.latent_channels)
        # A block starts as its skip alone, and the first prediction is zero: training starts calmly.
        for layer in (self.time.to_modulation, self.leave_modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tokens, context: Context, kept_self_attention: Float[Tensor, "B K"] | None = None) -> Float[Tensor, "B G C"]:
        """`kept_self_attention` weighs each attention block's self-attention, row by row; without it all of it counts."""
        embedded, time = self.time(tokens.sigmas, context.size)
        turn = self.rotary(tokens.positions)
        prompt = Text(self.text(context.prompt_embeds), context.mask)
        x = self.enter(tokens.values)
        for index, block in enumerate(self.attention_blocks):
            x = block(x, time, turn, prompt, None if kept_self_attention is None else kept_self_attention[:, index])
        for block in self.convolution_blocks:
            x = block(x, time, tokens.grid)
        t, h, w = tokens.grid
        shift, scale = self.leave_modulation(embedded[:, : t * h * w]).chunk(2, dim=-1)
        return self.leave(plain_norm(x[:, : t * h * w]) * (1 + scale) + shift)
