"""frames -> pixels of 64 rows -> the colours of things -> how much of each pixel every thing covers

Frames are pooled to 64 rows: the shapes of this world are coarse, and pooling calms an autoencoder's noise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor

from aiprod_components.miniature.backdrop import Backdrop, distance_to_tones
from aiprod_components.miniature.world import COLOURS

WORK_HEIGHT = 64
FOREGROUND = 30.0  # colour levels from the background's tones
PURE = 60.0  # colour levels from a palette colour


@dataclass(frozen=True)
class Cover:
    """How much of each pixel one thing covers, its palette colour, and how far from that it is drawn."""

    colour: str
    colour_error: float
    alpha: Float[Tensor, "T H W"]


def pool(frames: UInt8[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 3"]:
    """uint8 frames -> float frames of 64 rows."""
    height, width = frames.shape[1:3]
    small = (WORK_HEIGHT, round(width * WORK_HEIGHT / height))
    pixels = rearrange(frames.float(), "t h w c -> t c h w")
    return rearrange(F.adaptive_avg_pool2d(pixels, small), "t c h w -> t h w c")


def find_colours(pixels: Float[Tensor, "T H W 3"], away: Float[Tensor, "T H W"], tones: Tensor) -> list[tuple[str, Tensor, float]]:
    """The palette colours that fill areas of the clip: (name, colour as measured, its distance from the palette's)."""
    palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    foreground = away > FOREGROUND
    candidates = pixels[foreground]
    nearest = torch.cdist(candidates, palette).min(dim=1)
    label = torch.full(away.shape, -1)
    label[foreground] = torch.where(nearest.values < PURE, nearest.indices, -1)
    block = label[:, :-1, :-1]
    solid = (block == label[:, 1:, :-1]) & (block == label[:, :-1, 1:]) & (block == label[:, 1:, 1:])  # edges are too thin for 2x2 blocks
    early = solid[: max(len(solid) // 3, 1)]  # before anything has shrunk away
    counts = torch.bincount(block[: len(early)][early & (block[: len(early)] >= 0)], minlength=len(palette))
    found = {}
    for index in counts.argsort(descending=True)[:3].tolist():
        if counts[index] < max(3 * len(early), 0.03 * counts.max()):
            continue
        here = solid & (block == index)
        strength = away[:, :-1, :-1][here]
        mine = pixels[:, :-1, :-1][here][strength > 0.9 * strength.quantile(0.9)]  # the least mixed with the background
        found[index] = mine.median(dim=0).values
    pure = [index for index in found if not _is_blend(found[index], [*tones, *(found[other] for other in found if other != index)])]
    return [(list(COLOURS)[index], found[index], (found[index] - palette[index]).norm().item()) for index in pure[:2]]


def _is_blend(colour: Tensor, others: list[Tensor]) -> bool:
    """Whether a colour only lies on edges: between two others, as orange lies between red and yellow."""
    return any(_mixture(colour, one, two)[1] < 30 for one in others for two in others if one is not two)


def _mixture(pixels: Tensor, base: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Share of `colour` in pixels mixed from it and `base`, and the colour distance that no mixture explains."""
    line = colour - base
    share = (((pixels - base) * line).sum(-1) / (line * line).sum(-1).clamp(min=1.0)).clamp(0, 1)
    return share, (pixels - base - share[..., None] * line).norm(dim=-1)


def find_covers(pixels: Float[Tensor, "T H W 3"], backdrop: Backdrop) -> tuple[list[Cover], Float[Tensor, "T H W"]]:
    """Unmix every pixel into background and at most two things; also returns the colour distance that stays unexplained."""
    away, base = distance_to_tones(pixels, backdrop.tones)
    colours = find_colours(pixels, away, backdrop.tones)
    mixtures = [_mixture(pixels, base, colour) for _, colour, _ in colours]
    nothing = torch.zeros_like(away)
    if len(colours) < 2:
        alphas, unexplained = [share for share, _ in mixtures], mixtures[0][1] if mixtures else away
    else:
        (first, first_rest), (second, second_rest) = mixtures
        between, between_rest = _mixture(pixels, colours[1][1], colours[0][1])
        near_both = grow(first > 0.6, 2) & grow(second > 0.6, 2)
        between_rest = torch.where(near_both, between_rest, math.inf)
        rests = torch.stack([first_rest, second_rest, between_rest])
        unexplained, kind = rests.min(dim=0)
        alphas = [
            torch.where(kind == 0, first, torch.where(kind == 2, between, nothing)),
            torch.where(kind == 1, second, torch.where(kind == 2, 1 - between, nothing)),
        ]
    return [Cover(name, error, alpha) for (name, _, error), alpha in zip(colours, alphas, strict=True)], unexplained


def grow(mask: Bool[Tensor, "T H W"], by: int) -> Bool[Tensor, "T H W"]:
    """The mask and what is at most `by` pixels away from it."""
    return F.max_pool2d(mask.float(), 2 * by + 1, stride=1, padding=by) > 0.5


def keep_blob(alpha: Float[Tensor, "T H W"]) -> Float[Tensor, "T H W"]:
    """The largest connected blob of each frame with its soft rim."""
    labels, count = ndimage.label(  # pyright: ignore[reportGeneralTypeIssues]  # (labels, count), unless given an output
        (alpha > 0.4).numpy(), structure=np.pad(np.ones((1, 3, 3), dtype=int), ((1, 1), (0, 0), (0, 0)))
    )
    if count == 0:
        return torch.zeros_like(alpha)
    largest = np.array([np.bincount(frame.ravel(), minlength=count + 1)[1:].argmax() + 1 for frame in labels])
    return torch.where(grow(torch.from_numpy(labels == largest[:, None, None]), 2), alpha, 0.0)
