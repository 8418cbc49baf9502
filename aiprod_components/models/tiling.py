"""latents -> overlapping tiles -> frames of each, blended, a few at a time (and frames -> latents alike)

Time is exact: the VAE looks only back, so each tile is a stream with a `History` of its own. Space is not: a tile sees
nothing beyond its border, so neighbours overlap and are blended with weights that rise linearly from the border on.
Memory grows with the tile and the chunk, and with the picture's size; never with the length of the clip.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.errors import ConfigError
from aiprod_components.models.video_vae import History, VideoVAE

# A million pixels of a video at once: it bounds memory, and the default video of 33 x 128 x 128 is below it, so that is one piece.
POSITIONS_AT_ONCE = 1024
LARGEST_TILE, OVERLAP = 32, 4


@dataclass(frozen=True)
class Tiling:
    """The pieces a VAE works in. Raises ConfigError when they cannot be."""

    tile: int  # latent positions of a tile's side, at most
    overlap: int  # latent positions that neighbours share, at least
    chunk: int  # latent frames at once

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ConfigError(f"chunk must be at least 1 latent frame, got {self.chunk}")
        if not 0 <= 2 * self.overlap <= self.tile or self.tile < 1:
            raise ConfigError(f"overlap must be 0 to half of tile, got {self.overlap} of {self.tile}; make the tile larger")


def fit_tiling(height: int, width: int) -> Tiling:
    """Few and large pieces for latents of height x width: one tile up to 512 x 512 pixels, one piece where all is small."""
    tile = min(max(height, width, 2 * OVERLAP), LARGEST_TILE)
    return Tiling(tile, OVERLAP, max(POSITIONS_AT_ONCE // (min(height, tile) * min(width, tile)), 1))


def chunks_of(frames: int, *, tiling: Tiling) -> int:
    """How many chunks `frames` latent frames come in."""
    return math.ceil(frames / tiling.chunk)


def tiles_along(length: int, *, tile: int, overlap: int) -> tuple[slice, ...]:
    """As few tiles as cover `length`, of one size and no larger than needed, that share at least `overlap`."""
    count = max(math.ceil((length - overlap) / (tile - overlap)), 1)
    size = min(math.ceil((length + (count - 1) * overlap) / count), length)
    starts = [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
    return tuple(slice(start, start + size) for start in starts)


def trapezoid(length: int, *, rise: int, fall: int) -> Float[Tensor, "L"]:
    """Ones, but for linear ramps over the first `rise` and the last `fall`; two that meet in a ramp add up to one."""
    place = torch.arange(length) + 0.5
    up = (place / rise).clamp(max=1) if rise else torch.ones(length)
    down = ((length - place) / fall).clamp(max=1) if fall else torch.ones(length)
    return torch.minimum(up, down)


def blend_weights(tiles: Sequence[slice], *, scale: int) -> tuple[Float[Tensor, "L"], ...]:
    """For each tile, `scale` times as long, its part of every place; the parts of a place add up to one."""
    spans = [_scaled(tile, scale) for tile in tiles]
    shared = [0, *(before.stop - after.start for before, after in pairwise(spans)), 0]
    raw = [trapezoid(span.stop - span.start, rise=shared[i], fall=shared[i + 1]) for i, span in enumerate(spans)]
    total = torch.zeros(spans[-1].stop)
    for span, weights in zip(spans, raw, strict=True):
        total[span] += weights
    return tuple(weights / total[span] for span, weights in zip(spans, raw, strict=True))


def decode_stream(vae: VideoVAE, latents: Float[Tensor, "B C T H W"], *, tiling: Tiling) -> Iterator[Float[Tensor, "B 3 t h w"]]:
    """Normalized latents -> frames in [0, 1], in order, a chunk's at a time."""
    _, space = _compression(vae)
    mosaic = _Mosaic(vae.decode, (latents.shape[3], latents.shape[4]), tiling=tiling, source=1, target=space)
    for chunk in latents.split(tiling.chunk, dim=2):
        yield mosaic.next(chunk)


def encode_stream(vae: VideoVAE, frames: Float[Tensor, "B 3 T H W"], *, tiling: Tiling) -> Iterator[Float[Tensor, "B C t h w"]]:
    """4k + 1 frames in [0, 1] with sides that are multiples of 16 -> normalized latents, in order, a chunk's at a time."""
    time, space = _compression(vae)
    mosaic = _Mosaic(vae.encode, (frames.shape[3] // space, frames.shape[4] // space), tiling=tiling, source=space, target=1)
    for end in range(tiling.chunk, math.ceil(frames.shape[2] / time) + tiling.chunk, tiling.chunk):
        # The first latent frame is one frame alone, so every later chunk begins that much before its place.
        start, stop = time * (end - tiling.chunk - 1) + 1, time * (end - 1) + 1
        yield mosaic.next(frames[:, :, max(start, 0) : stop])


class _Mosaic:
    """A latent height and width cut into tiles, each of them a stream through `network`.

    A latent position is `source` wide in what the network is given, and `target` wide in what it answers.
    """

    def __init__(
        self, network: Callable[[Tensor, History], Tensor], size: tuple[int, int], *, tiling: Tiling, source: int, target: int
    ) -> None:
        self._network, self._source, self._target = network, source, target
        self._whole = (target * size[0], target * size[1])
        rows, columns = (
            tuple(zip(tiles, blend_weights(tiles, scale=target), strict=True))
            for tiles in (tiles_along(length, tile=tiling.tile, overlap=tiling.overlap) for length in size)
        )
        self._tiles = [(row, column, History()) for row, column in product(rows, columns)]

    def next(self, x: Tensor) -> Tensor:
        """The network's answer to the next chunk."""
        whole = x.new_empty(0)
        for (rows, row_weights), (columns, column_weights), past in self._tiles:
            part = self._network(x[:, :, :, _scaled(rows, self._source), _scaled(columns, self._source)], past)
            if not whole.numel():
                whole = part.new_zeros((*part.shape[:3], *self._whole))
            weights = (rearrange(row_weights, "h -> h 1") * column_weights).to(part.device)
            whole[:, :, :, _scaled(rows, self._target), _scaled(columns, self._target)] += part * weights
        return whole


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _compression(vae: VideoVAE) -> tuple[int, int]:
    """Frames, and pixels of a side, to a latent."""
    return math.prod(stride[0] for stride in vae.config.strides), math.prod(stride[1] for stride in vae.config.strides)
