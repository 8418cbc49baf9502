"""latents <-> tokens; normalized <-> as the VAEs have them

The order of operations is diffusers', since results are compared with its pipelines' bit by bit.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.families.ltx2 import LTX2Family


@dataclass(frozen=True)
class Normalization:
    """By the statistics of each channel, which broadcast against what is normalized."""

    mean: Tensor
    std: Tensor
    factor: float

    @classmethod
    def of_video(cls, family: LTX2Family, *, device: torch.device) -> "Normalization":
        """Of latents B C T H W."""
        mean, std = (rearrange(each, "c -> 1 c 1 1 1").to(device) for each in family.statistics("vae"))
        return cls(mean, std, float(family.config("vae").get("scaling_factor", 1.0)))

    @classmethod
    def of_audio(cls, family: LTX2Family, *, device: torch.device) -> "Normalization":
        """Of audio tokens B L (C F)."""
        mean, std = (each.to(device) for each in family.statistics("audio_vae"))
        return cls(mean, std, 1.0)

    def done(self, latents: Tensor) -> Tensor:
        return (latents - self.mean.to(latents.dtype)) * self.factor / self.std.to(latents.dtype)

    def undone(self, latents: Tensor) -> Tensor:
        return latents * self.std.to(latents.dtype) / self.factor + self.mean.to(latents.dtype)


def tokens_of(latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B S C"]:
    return rearrange(latents, "b c t h w -> b (t h w) c")


def grid_of(tokens: Float[Tensor, "B S C"], *, shape: tuple[int, int, int]) -> Float[Tensor, "B C T H W"]:
    """`shape` is latent frames, height and width; tokens beyond it are left out."""
    t, h, w = shape
    return rearrange(tokens[:, : t * h * w], "b (t h w) c -> b c t h w", t=t, h=h, w=w)


def audio_tokens_of(latents: Float[Tensor, "B C L F"]) -> Float[Tensor, "B L D"]:
    return rearrange(latents, "b c l f -> b l (c f)")


def audio_grid_of(tokens: Float[Tensor, "B L D"], *, channels: int) -> Float[Tensor, "B C L F"]:
    return rearrange(tokens, "b l (c f) -> b c l f", c=channels)
