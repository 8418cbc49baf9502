"""frames -> mu and logvar -> latents -> frames

The VideoVAE of the specification: space 16x, time 4x, causal in time (the first frame alone, then groups of four), so
a clip of 4k + 1 frames has k + 1 latent frames. Every layer looks back a fixed distance and never ahead: decoding a
clip chunk by chunk with a `History` gives exactly the frames of decoding it whole.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

Stride = tuple[int, int, int]


@dataclass(frozen=True)
class VideoVAEConfig:
    """`widths` and `strides` (time, height, width) name the encoder's levels; the decoder mirrors them."""

    widths: tuple[int, ...]
    latent_channels: int
    attention_heads: int
    attention_window: int  # latent frames that the temporal attention sees, its own included
    strides: tuple[Stride, ...] = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    residual_blocks: tuple[int, ...] = (1, 1, 1, 1)  # of each level, as `widths`: coarse ones are cheap and see most


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents."""

    mu: Float[Tensor, "B C T H W"]
    logvar: Float[Tensor, "B C T H W"]

    def sample(self, noise: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        return self.mu + noise * torch.exp(0.5 * self.logvar)

    def kl(self) -> Float[Tensor, ""]:
        """KL to the standard normal, averaged over all latent numbers (Kingma & Welling 2013, appendix B)."""
        return -0.5 * torch.mean(1 + self.logvar - self.mu.square() - self.logvar.exp())


class History:
    """What a stream's layers remember of the chunks before. A whole clip is a stream of one chunk."""

    def __init__(self) -> None:
        self._past: dict[nn.Module, Tensor] = {}

    def window(self, layer: nn.Module, x: Tensor, *, start: Tensor, keep: int) -> Tensor:
        """What `layer` kept of the chunks before (`start` when there were none), then `x`; keeps the last `keep` frames."""
        seen = torch.cat([self._past.get(layer, start), x], dim=2)
        # A copy: a view would keep the whole chunk's activations alive.
        self._past[layer] = seen[:, :, max(seen.shape[2] - keep, 0) :].clone()
        return seen

    def is_first(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether this is the first chunk that `layer` sees."""
        first = layer not in self._past
        self._past[layer] = x[:, :, :0]
        return first


class CausalConv3d(nn.Conv3d):
    """A convolution that sees no later frame; before the first frame it sees the first frame repeated."""

    bias: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]  # always there

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Stride = (3, 3, 3), stride: Stride = (1, 1, 1)) -> None:
        space = ((kernel[1] - stride[1] + 1) // 2, (kernel[2] - stride[2] + 1) // 2)
        super().__init__(in_channels, out_channels, kernel, stride, padding=(0, *space))
        # Variance is kept and nothing is added: with PyTorch's default, biases drown flat pictures and training stalls.
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, history: History) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel > 1:
            # One memory format for both, or concatenating them copies the whole clip into the slower one.
            start = x[:, :, :1].repeat(1, 1, kernel - 1, 1, 1).contiguous(memory_format=torch.channels_last_3d)
            x = history.window(self, x.contiguous(memory_format=torch.channels_last_3d), start=start, keep=kernel - stride)
        return super().forward(x)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of one position: independent of every other position, so tiles and streams agree."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # a shorter name
        return rearrange(super().forward(rearrange(x, "b c t h w -> b t h w c")), "b t h w c -> b c t h w")


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(channels), CausalConv3d(channels, channels)
        self.norm2, self.conv2 = ChannelNorm(channels), CausalConv3d(channels, channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, history: History) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)), history)
        return x + self.conv2(F.silu(self.norm2(h)), history)


class Downsample(nn.Module):
    """A strided convolution beside a shortcut that averages groups of space-to-channel values (DC-AE, Chen et al. 2024)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: Stride) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, out_channels
        # Four wide where it strides, three in time where it does not: the specification's kernels.
        self.convolution = CausalConv3d(in_channels, out_channels, kernel=(4 if stride[0] == 2 else 3, 4, 4), stride=stride)

    def forward(self, x: Tensor, history: History) -> Tensor:
        st, sh, sw = self.stride
        padded = torch.cat([x[:, :, :1], x], dim=2) if st == 2 and history.is_first(self, x) else x
        grouped = rearrange(padded, "b c (t st) (h sh) (w sw) -> b (c st sh sw) t h w", st=st, sh=sh, sw=sw)
        return self.convolution(x, history) + reduce(grouped, "b (o g) t h w -> b o t h w", "mean", o=self.out_channels)


class Upsample(nn.Module):
    """Channels to space and time, beside a nearest-neighbour shortcut; the first frame stays one frame."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        expanded = out_channels * stride[0] * stride[1] * stride[2]
        self.copies = expanded // in_channels
        self.expand = CausalConv3d(in_channels, expanded, kernel=(1, 1, 1))

    def forward(self, x: Tensor, history: History) -> Tensor:
        st, sh, sw = self.stride
        x = self.expand(x, history) + repeat(x, "b c t h w -> b (c n) t h w", n=self.copies)
        x = rearrange(x, "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)", st=st, sh=sh, sw=sw)
        return x[:, :, st - 1 :] if history.is_first(self, x) else x


class TemporalAttention(nn.Module):
    """Each position attends to itself in the last `window` latent frames (residual)."""

    def __init__(self, channels: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.age_bias = nn.Parameter(torch.zeros(heads, window))

    def forward(self, x: Tensor, history: History) -> Tensor:
        h = self.norm(x)
        seen = history.window(self, h, start=h[:, :, :0], keep=self.window - 1)
        batch, height = x.shape[0], x.shape[3]
        q, k, v = self.qkv(rearrange(seen, "b c t h w -> (b h w) t c")).chunk(3, dim=-1)
        q, k, v = (rearrange(part, "s t (n d) -> s n t d", n=self.heads) for part in (q[:, -x.shape[2] :], k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(q.shape[2], k.shape[2]).to(q.dtype))
        attended = self.out(rearrange(attended, "s n t d -> s t (n d)"))
        return x + rearrange(attended, "(b h w) t c -> b c t h w", b=batch, h=height)

    def _mask(self, queries: int, keys: int) -> Float[Tensor, "N Q K"]:
        steps = torch.arange(keys, device=self.age_bias.device)
        age = steps[keys - queries :, None] - steps[None, :]
        bias = self.age_bias[:, age.clamp(0, self.window - 1)]
        return bias.masked_fill((age < 0) | (age >= self.window), float("-inf"))


class Encoder(nn.Module):
    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        first, *_ = config.widths
        self.levels = nn.ModuleList([CausalConv3d(3, first, kernel=(3, 4, 4), stride=config.strides[0])])
        for level, width in enumerate(config.widths):
            if level > 0:
                self.levels.append(Downsample(config.widths[level - 1], width, stride=config.strides[level]))
            self.levels.extend(ResidualBlock(width) for _ in range(config.residual_blocks[level]))
        self.norm = ChannelNorm(config.widths[-1])
        self.mu = CausalConv3d(config.widths[-1], config.latent_channels, kernel=(1, 1, 1))
        self.logvar = CausalConv3d(config.widths[-1], config.latent_channels, kernel=(1, 1, 1))
        # Nearly certain at first: with unit variance the decoder sees noise alone and learns to ignore it.
        nn.init.zeros_(self.logvar.weight)
        nn.init.constant_(self.logvar.bias, -6.0)

    def forward(self, x: Tensor, history: History) -> Posterior:
        for layer in self.levels:
            x = layer(x, history)
        x = F.silu(self.norm(x))
        return Posterior(self.mu(x, history).float(), self.logvar(x, history).float().clamp(-20, 10))


class Decoder(nn.Module):
    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.attention = TemporalAttention(config.latent_channels, heads=config.attention_heads, window=config.attention_window)
        self.levels = nn.ModuleList([CausalConv3d(config.latent_channels, config.widths[-1])])
        for level in reversed(range(len(config.widths))):
            width = config.widths[level]
            self.levels.extend(ResidualBlock(width) for _ in range(config.residual_blocks[level]))
            if level > 0:
                self.levels.append(Upsample(width, config.widths[level - 1], stride=config.strides[level]))
        self.norm = ChannelNorm(config.widths[0])
        self.smooth = CausalConv3d(config.widths[0], config.widths[0])
        self.pixel_stride = config.strides[0]
        self.to_pixels = CausalConv3d(config.widths[0], 3 * self.pixel_stride[1] * self.pixel_stride[2], kernel=(1, 1, 1))

    def forward(self, z: Tensor, history: History) -> Tensor:
        x = self.attention(z, history)
        for layer in self.levels:
            x = layer(x, history)
        x = self.smooth(F.silu(self.norm(x)), history)
        _, sh, sw = self.pixel_stride
        pixels = rearrange(self.to_pixels(F.silu(x), history), "b (c sh sw) t h w -> b c t (h sh) (w sw)", sh=sh, sw=sw)
        return torch.sigmoid(pixels.float())


class VideoVAE(nn.Module):
    """Frames in [0, 1] to latents and back. Outside the VAE latents are normalized: (mu - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("mean", torch.zeros(config.latent_channels))
        self.register_buffer("std", torch.ones(config.latent_channels))

    def posterior(self, frames: Float[Tensor, "B 3 T H W"], history: History | None = None) -> Posterior:
        """Frames in [0, 1] -> posterior over raw latents. T is 4k + 1 at the start of a stream, then 4k; H and W are multiples of 16."""
        return self.encoder(2 * frames - 1, history or History())

    def encode(self, frames: Float[Tensor, "B 3 T H W"], history: History | None = None) -> Float[Tensor, "B C t h w"]:
        """Frames in [0, 1] -> normalized latents."""
        return (self.posterior(frames, history).mu - self._per_channel(self.mean)) / self._per_channel(self.std)

    def decode(self, latents: Float[Tensor, "B C t h w"], history: History | None = None) -> Float[Tensor, "B 3 T H W"]:
        """Normalized latents -> frames in [0, 1]."""
        return self.decoder(latents * self._per_channel(self.std) + self._per_channel(self.mean), history or History())

    def forward(self, frames: Float[Tensor, "B 3 T H W"], noise: Float[Tensor, "B C t h w"]) -> tuple[Tensor, Posterior]:
        """Training: frames in [0, 1] -> (reconstruction of a posterior sample drawn with `noise`, posterior)."""
        posterior = self.posterior(frames)
        return self.decoder(posterior.sample(noise), History()), posterior

    @staticmethod
    def _per_channel(statistic: Tensor) -> Tensor:
        return rearrange(statistic, "c -> c 1 1 1")
