"""Tiles cover the picture, blend without a seam, and stream exactly."""

import random
from itertools import pairwise

import pytest
import torch
from einops import rearrange
from torch import Tensor

from aiprod_components.errors import ConfigError
from aiprod_components.families import make_family
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import SceneMix, sample_scene
from aiprod_components.models.tiling import (
    Tiling,
    blend_weights,
    chunks_of,
    decode_stream,
    encode_stream,
    fit_tiling,
    tiles_along,
    trapezoid,
)
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.training.dataset import clips_of

LENGTHS = [(1, 8, 2), (7, 8, 4), (8, 8, 2), (9, 8, 4), (16, 8, 0), (16, 8, 1), (17, 8, 4), (31, 7, 3), (120, 32, 4)]


@pytest.mark.parametrize(("length", "tile", "overlap"), LENGTHS)
def test_tiles_cover_everything_and_share_what_was_asked(length: int, tile: int, overlap: int):
    tiles = tiles_along(length, tile=tile, overlap=overlap)
    assert tiles[0].start == 0 and tiles[-1].stop == length
    assert len({t.stop - t.start for t in tiles}) == 1 and tiles[0].stop <= tile
    assert all(before.stop - after.start >= overlap for before, after in pairwise(tiles))
    assert len(tiles) == 1 or length > tile


@pytest.mark.parametrize(("length", "tile", "overlap"), LENGTHS)
@pytest.mark.parametrize("scale", [1, 16])
def test_the_weights_of_every_place_add_up_to_one(length: int, tile: int, overlap: int, scale: int):
    tiles = tiles_along(length, tile=tile, overlap=overlap)
    total = torch.zeros(length * scale)
    for part, weights in zip(tiles, blend_weights(tiles, scale=scale), strict=True):
        assert (weights > 0).all()
        total[part.start * scale : part.stop * scale] += weights
    torch.testing.assert_close(total, torch.ones(length * scale))


def test_a_trapezoid_rises_and_falls_in_even_steps():
    torch.testing.assert_close(trapezoid(7, rise=2, fall=4), torch.tensor([0.25, 0.75, 1, 0.875, 0.625, 0.375, 0.125]))
    torch.testing.assert_close(trapezoid(3, rise=0, fall=0), torch.ones(3))


@pytest.mark.parametrize("chunk", [1, 2, 4, 9])
def test_a_stream_of_chunks_is_the_whole_decode(vae: VideoVAE, chunk: int):
    latents = torch.randn(1, 8, 6, 3, 2)
    chunks = list(decode_stream(vae, latents, tiling=Tiling(8, 2, chunk)))
    assert len(chunks) == chunks_of(6, tiling=Tiling(8, 2, chunk))
    torch.testing.assert_close(torch.cat(chunks, dim=2), vae.decode(latents), rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 4, 9])
@pytest.mark.parametrize("frames", [1, 5, 13, 17])
def test_a_stream_of_frames_is_the_whole_encode(vae: VideoVAE, chunk: int, frames: int):
    clip = torch.rand(1, 3, frames, 32, 48)
    chunks = list(encode_stream(vae, clip, tiling=Tiling(8, 2, chunk)))
    assert len(chunks) == chunks_of((frames - 1) // 4 + 1, tiling=Tiling(8, 2, chunk))
    torch.testing.assert_close(torch.cat(chunks, dim=2), vae.encode(clip), rtol=0, atol=1e-6)


def test_what_fits_into_one_piece_is_decoded_to_the_last_bit_as_ever(vae: VideoVAE):
    latents = torch.randn(1, 8, 9, 8, 8)
    (frames,) = decode_stream(vae, latents, tiling=fit_tiling(8, 8))
    torch.testing.assert_close(frames, vae.decode(latents), rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (3, 11), (9, 4)])
def test_sides_of_any_length_come_back_whole_and_in_order(vae: VideoVAE, height: int, width: int):
    latents = torch.randn(2, 8, 3, height, width)
    tiling = Tiling(tile=4, overlap=2, chunk=2)
    frames = torch.cat(list(decode_stream(vae, latents, tiling=tiling)), dim=2)
    assert frames.shape == (2, 3, 9, 16 * height, 16 * width)
    again = torch.cat(list(encode_stream(vae, frames, tiling=tiling)), dim=2)
    assert again.shape == latents.shape
    # What a tile cannot see changes a little; a tile in the wrong place would change all.
    whole = vae.decode(latents)
    assert (frames - whole).square().mean() < 0.05 * whole.var()


def test_a_video_of_the_default_size_is_one_piece_and_a_large_one_is_bounded():
    small, large = fit_tiling(8, 8), fit_tiling(68, 120)
    assert chunks_of(9, tiling=small) == 1 and len(tiles_along(8, tile=small.tile, overlap=small.overlap)) == 1
    assert (large.tile, large.chunk) == (32, 1)
    assert fit_tiling(1, 1).tile == 8


@pytest.mark.parametrize(
    ("tile", "overlap", "chunk", "way_out"), [(8, 5, 1, "0 to half of tile"), (8, -1, 1, "0 to half"), (8, 2, 0, "at least 1")]
)
def test_pieces_that_cannot_be_are_refused(tile: int, overlap: int, chunk: int, way_out: str):
    with pytest.raises(ConfigError, match=way_out):
        Tiling(tile, overlap, chunk)


@pytest.fixture(scope="module")
def rendered() -> tuple[VideoVAE, Tensor, Tensor]:
    """The miniature's VAE, latents of a scene at 256 x 256 whose thing lies across the tiles' borders, and their frames."""
    trained = make_family("miniature").load("vae")
    assert isinstance(trained, VideoVAE)
    with torch.inference_mode():
        scene = sample_scene(random.Random(6), mix=SceneMix())
        latents = trained.encode(to_unit(clips_of([scene], num_frames=5, size=256)))
        return trained, latents, trained.decode(latents)


def error_of(rendered: tuple[VideoVAE, Tensor, Tensor], *, overlap: int) -> Tensor:
    trained, latents, whole = rendered
    with torch.inference_mode():
        return torch.cat(list(decode_stream(trained, latents, tiling=Tiling(8, overlap, chunk=1))), dim=2) - whole


def test_tiles_show_the_picture_that_the_whole_would(rendered: tuple[VideoVAE, Tensor, Tensor]):
    assert -10 * error_of(rendered, overlap=2).square().mean().log10() > 40


def test_blended_tiles_have_no_seam_where_bare_ones_have_one(rendered: tuple[VideoVAE, Tensor, Tensor]):
    bare, blended = (seam(error_of(rendered, overlap=overlap), overlap=overlap) for overlap in (0, 2))
    assert bare > 3
    assert blended < 1.5


def seam(error: Tensor, *, overlap: int) -> float:
    """How much more the error leaps across the border of a tile than from any other column or row to the next."""
    borders = {16 * end for part in tiles_along(16, tile=8, overlap=overlap) for end in (part.start, part.stop)} - {0, 256}
    others = [place for place in range(1, 256) if place not in borders]
    leaps = torch.stack([sides.diff(dim=-1).abs().mean(dim=(0, 1, 2, 3)) for sides in (error, rearrange(error, "b c t h w -> b c t w h"))])
    return (leaps[:, [place - 1 for place in borders]].mean() / leaps[:, [place - 1 for place in others]].mean()).item()
