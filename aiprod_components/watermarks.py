"""frames -> frames that say that they were generated: to the eye (`visible`), or to `detect` (`invisible`)

A family's `watermark` is a name from the table below, or `package.module:factory` for one's own. The decoder applies it to raw frames, so
it is in the digest of the frames, and in every file made of them.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from aiprod_components.errors import ConfigError

Pixels = UInt8[Tensor, "1 t H W 3"]

TEXT = "AI"
OPACITY = 0.6

KEY_VARIABLE, PUBLIC_KEY = "AIPROD_WATERMARK_KEY", "aiprod"
BITS = 64  # to a side of the pattern, which repeats beyond
LEVELS = 2  # by which a pixel gets brighter or darker
FINE_BELOW = 256  # the shorter side of frames whose cells are 2 pixels wide rather than 4: smaller cells are more, larger ones last longer
CLIP = 4.0  # what an edge of the picture may count for, in levels
LUMA = (0.299, 0.587, 0.114)

# Frames without the mark, or with one of another key, score like a standard normal variable: 6 by chance once in a billion.
DETECTED = 6.0


@runtime_checkable
class Watermark(Protocol):
    """A step between the decoder and the encoder."""

    def apply(self, frames: Pixels, *, start: int) -> Pixels:
        """Marked frames; the first is frame `start` of its video. A frame's mark must not depend on how the video is cut into chunks."""
        ...


class Visible:
    """A small plate with letters, half transparent, in the lower right corner."""

    def apply(self, frames: Pixels, *, start: int) -> Pixels:
        height, width = frames.shape[2:4]
        plate = _plate(height, width)
        rows, columns = plate.shape[:2]
        bottom, right = height - _margin(height, width), width - _margin(height, width)
        marked = frames.clone()
        corner = marked[:, :, bottom - rows : bottom, right - columns : right]
        corner.copy_(torch.lerp(corner.float(), plate[..., :3], plate[..., 3:]).round().to(torch.uint8))
        return marked


@dataclass(frozen=True)
class Invisible:
    """A faint fixed grain of luminance, drawn from a key; who has the key finds it with `detect`.

    It outlives this product's encoder and x264 at its usual rate factor 23, in frames of 256 pixels and more also 28. It does not outlive
    cropping, turning or scaling, nor anyone who means to remove it. Frames under 128 pixels, and all black or white ones, have too little
    room for it. And it costs bits: an encoder does not know that nobody sees it, and a flat drawing's file can double.
    """

    key: str

    def apply(self, frames: Pixels, *, start: int) -> Pixels:
        brighter, darker = _grain(self.key, *frames.shape[2:4])
        # In bytes all the way, each kept from going over: four times as fast as in wider numbers.
        up = torch.minimum(frames, 255 - brighter).add_(brighter)
        return torch.maximum(up, darker).sub_(darker)


def detect(frames: UInt8[Tensor, "T H W 3"], *, key: str) -> float:
    """How surely these frames carry the invisible mark of `key`, in standard deviations; `DETECTED` and more is sure."""
    cell = _cell(*frames.shape[1:3])
    cells = torch.stack([_residual(frame, cell) for frame in frames]).mean(dim=0)
    folded = torch.zeros(BITS, BITS)
    rows, columns = (torch.arange(size) % BITS for size in cells.shape)
    folded.index_put_((rows[:, None], columns[None]), cells, accumulate=True)
    strength = folded.square().sum().sqrt()
    return float((folded * _signs(key)).sum() / strength) if strength > 0 else 0.0


def make_invisible() -> Watermark:
    """Of the key in $AIPROD_WATERMARK_KEY; without one, of a key that everybody knows: good for telling, not for proving."""
    return Invisible(os.environ.get(KEY_VARIABLE) or PUBLIC_KEY)


WATERMARKS: dict[str, Callable[[], Watermark]] = {"visible": Visible, "invisible": make_invisible}


def make_watermark(name: str) -> Watermark:
    """The watermark of that name, or what `package.module:factory` makes. Raises ConfigError when there is none."""
    if name in WATERMARKS:
        return WATERMARKS[name]()
    module, colon, factory = name.partition(":")
    if not (module and colon and factory):
        raise ConfigError(f"watermark {name!r} is unknown; there are {', '.join(WATERMARKS)}, or name one as package.module:factory")
    try:
        made = getattr(import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"watermark {name!r} cannot be made ({error}); install the package on every node, and see that it has it"
        ) from error
    if not isinstance(made, Watermark):
        raise ConfigError(f"watermark {name!r} is a {type(made).__name__}, which has no apply(frames, *, start)")
    return made


def _margin(height: int, width: int) -> int:
    return max(min(height, width) // 40, 1)


@lru_cache(maxsize=16)
def _plate(height: int, width: int) -> Float[Tensor, "h w 4"]:
    """Red, green and blue in levels, and how much of them is seen."""
    size = max(min(height, width) // 18, 8)
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(TEXT)
    pad = max(size // 4, 2)
    plate = Image.new("RGB", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), "black")
    ImageDraw.Draw(plate).text((pad - left, pad - top), TEXT, fill="white", font=font)
    colours = torch.from_numpy(np.array(plate)).float()
    return torch.cat([colours, torch.full_like(colours[..., :1], OPACITY)], dim=-1)


def _cell(height: int, width: int) -> int:
    return 2 if min(height, width) < FINE_BELOW else 4


@lru_cache(maxsize=16)
def _signs(key: str) -> Float[Tensor, "n n"]:
    """1 and -1, drawn from the key."""
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(BITS * BITS // 8), dtype=np.uint8)
    return rearrange(torch.from_numpy(np.unpackbits(drawn)).float() * 2 - 1, "(row column) -> row column", row=BITS)


@lru_cache(maxsize=4)
def _grain(key: str, height: int, width: int) -> tuple[UInt8[Tensor, "H W 3"], UInt8[Tensor, "H W 3"]]:
    """By how much each pixel gets brighter, and by how much darker."""
    cell = _cell(height, width)
    down, across = (-(-side // (BITS * cell)) for side in (height, width))
    signs = repeat(_signs(key), "r c -> (down r y) (across c x) rgb", down=down, across=across, y=cell, x=cell, rgb=3)[:height, :width]
    brighter, darker = ((signs * way).clamp(min=0) * LEVELS for way in (1, -1))
    return brighter.to(torch.uint8).contiguous(), darker.to(torch.uint8).contiguous()


def _residual(frame: UInt8[Tensor, "H W 3"], cell: int) -> Float[Tensor, "h w"]:
    """By how much each cell is brighter than its neighbours: nearly all of the picture is gone, and all of the grain is left."""
    height, width = (side // cell * cell for side in frame.shape[:2])
    luma = frame[:height, :width].float() @ torch.tensor(LUMA)
    cells = reduce(luma, "(h y) (w x) -> 1 1 h w", "mean", y=cell, x=cell)
    around = (F.avg_pool2d(F.pad(cells, [1] * 4, mode="replicate"), 3, stride=1) * 9 - cells) / 8
    return rearrange((cells - around).clamp(-CLIP, CLIP), "1 1 h w -> h w")
