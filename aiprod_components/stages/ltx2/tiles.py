"""a large video -> overlapping tiles in time and space -> each through the VAE -> blended where they overlap

Not by diffusers' own tiling, which `enable_tiling` turns on in space alone: in time (`use_framewise_decoding`) it shows every frame after
the first tile one frame late and loses the last, and its last tiles may be narrower than what the decoder of 2.0 pads them with.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Span = tuple[int, int]


@dataclass(frozen=True)
class TileSize:
    """How much of a video goes through the VAE at a time, and how much of it two tiles share at least, in latents."""

    frames: int
    side: int
    shared_frames: int
    shared_side: int


@dataclass(frozen=True)
class Unit:
    """What a latent is in a tensor: 8 frames (of the first: 1) of 32 x 32 pixels, or itself."""

    frames: int
    side: int


LATENTS, PIXELS = Unit(1, 1), Unit(8, 32)
TILE = TileSize(frames=9, side=24, shared_frames=4, shared_side=4)  # 65 frames of 768 x 768
WHOLE = TileSize(frames=10**6, side=10**6, shared_frames=0, shared_side=0)
LARGE = 16 * 22 * 40  # latents: 121 frames of 1280 x 704 are not large yet


def decoded_parts(vae: Any, latents: Float[Tensor, "B C T H W"], *, tiling: str) -> Iterator[Float[Tensor, "B 3 t h w"]]:
    """Frames, a few at a time where the video is large."""

    def decode(tile: Tensor) -> Tensor:
        return vae.decode(tile, None, return_dict=False)[0]

    size = choose_tile(tiling, math.prod(count_latents(latents, LATENTS)))
    return through_tiles(decode, latents, size=size, given=LATENTS, made=PIXELS)


def encoded(vae: Any, frames: Float[Tensor, "B 3 T H W"], *, tiling: str) -> Float[Tensor, "B C t h w"]:
    def encode(tile: Tensor) -> Tensor:
        return vae.encode(tile).latent_dist.mode()

    size = choose_tile(tiling, math.prod(count_latents(frames, PIXELS)))
    return torch.cat(list(through_tiles(encode, frames, size=size, given=PIXELS, made=LATENTS)), dim=2)


def choose_tile(tiling: str, latents: int) -> TileSize:
    """For a video of so many latents; `tiling` is auto, always or never."""
    return TILE if tiling == "always" or (tiling == "auto" and latents > LARGE) else WHOLE


def count_latents(x: Tensor, unit: Unit) -> tuple[int, int, int]:
    """Frames, height, width."""
    return (x.shape[2] - 1) // unit.frames + 1, x.shape[3] // unit.side, x.shape[4] // unit.side


def through_tiles(
    network: Callable[[Tensor], Tensor], x: Float[Tensor, "B C T H W"], *, size: TileSize, given: Unit, made: Unit
) -> Iterator[Float[Tensor, "B D t h w"]]:
    """What the network makes of a video, a few frames at a time. `given` and `made` are the units of what it is given and makes."""
    frames, height, width = count_latents(x, given)
    rows = spans(height, size=size.side, shared=size.shared_side)
    columns = spans(width, size=size.side, shared=size.shared_side)

    def plane(part: Tensor) -> Tensor:
        made_rows = [
            _joined([network(tile) for tile in _cut(row, columns, given, dim=4)], columns, made, dim=4)
            for row in _cut(part, rows, given, dim=3)
        ]
        return _joined(made_rows, rows, made, dim=3)

    moments = spans(frames, size=size.frames, shared=size.shared_frames)
    carried: Tensor | None = None
    for (start, end), (following, _) in pairwise([*moments, (frames, frames)]):
        part = plane(x[:, :, start * given.frames : (end - 1) * given.frames + 1])
        if carried is not None:
            # A tile's first latent means one frame, whatever it means in the whole; the tile before has that one.
            part = _blended(carried, part[:, :, 1:], dim=2)
        whole = part.shape[2] - max(end - 1 - following, 0) * made.frames
        yield part[:, :, :whole]
        carried = part[:, :, whole:]


def spans(length: int, *, size: int, shared: int) -> list[Span]:
    """All of one size, as few as cover the length while neighbours share that much."""
    if length <= size:
        return [(0, length)]
    steps = math.ceil((length - size) / (size - shared))
    starts = [(length - size) * step // steps for step in range(steps + 1)]
    return [(start, start + size) for start in starts]


def _cut(x: Tensor, parts: Sequence[Span], unit: Unit, *, dim: int) -> list[Tensor]:
    return [x.narrow(dim, start * unit.side, (end - start) * unit.side) for start, end in parts]


def _joined(tiles: Sequence[Tensor], parts: Sequence[Span], unit: Unit, *, dim: int) -> Tensor:
    """Along height or width."""
    joined = tiles[0]
    for tile, (_, end), (start, _) in zip(tiles[1:], parts, parts[1:], strict=False):
        shared = (end - start) * unit.side
        whole = joined.shape[dim] - shared
        joined = torch.cat([joined.narrow(dim, 0, whole), _blended(joined.narrow(dim, whole, shared), tile, dim=dim)], dim=dim)
    return joined


def _blended(before: Tensor, after: Tensor, *, dim: int) -> Tensor:
    """`after`, which fades in where `before` is as well."""
    shared = before.shape[dim]
    weights = torch.arange(1, shared + 1, device=after.device, dtype=torch.float32) / (shared + 1)
    along = {2: "n -> n 1 1", 3: "n -> n 1", 4: "n -> n"}[dim]
    mixed = torch.lerp(before.float(), after.narrow(dim, 0, shared).float(), rearrange(weights, along)).to(after.dtype)
    return torch.cat([mixed, after.narrow(dim, shared, after.shape[dim] - shared)], dim=dim)
