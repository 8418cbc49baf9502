"""Edges are one pixel wide, lie where the shape ends, and are neither noise nor alone."""

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.media.canny import canny_edges, edge_f1, edge_frames

Place = tuple[int, int]
BACKGROUND = (15, 25, 75)


def drawn(
    size: int, inside: Callable[[Tensor, Tensor], Tensor], colour: tuple[int, int, int] = (245, 140, 30)
) -> UInt8[Tensor, "1 1 H W 3"]:
    """A flat shape on a flat background, its border smoothed by four samples a side."""
    at = (torch.arange(size * 4) + 0.5) / 4 - 0.5
    cover = inside(*torch.meshgrid(at, at, indexing="ij")).float()
    cover = torch.nn.functional.avg_pool2d(cover[None, None], 4)[0, 0, ..., None]
    pixels = cover * torch.tensor(colour) + (1 - cover) * torch.tensor(BACKGROUND)
    return pixels.round().to(torch.uint8)[None, None]


def disc(size: int, *, radius: float, centre: tuple[float, float]) -> UInt8[Tensor, "1 1 H W 3"]:
    return drawn(size, lambda y, x: (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)


def regions(edges: Float[Tensor, "H W"]) -> int:
    """Into how many parts the edges cut the frame, for one who steps down, up and sideways but not across corners."""
    free = {(int(y), int(x)) for y, x in (edges == 0).nonzero()}
    count = 0
    while free:
        front, count = [free.pop()], count + 1
        while front:
            y, x = front.pop()
            beside = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & free
            free -= beside
            front += beside
    return count


@pytest.mark.parametrize(("size", "radius"), [(64, 7.0), (64, 19.3), (128, 13.0), (128, 40.6)])
def test_the_edge_of_a_disc_lies_within_a_pixel_of_its_circle_all_around(size: int, radius: float):
    centre = (size * 0.45, size * 0.52)
    places = canny_edges(disc(size, radius=radius, centre=centre))[0, 0].nonzero() - torch.tensor(centre)
    assert (places.norm(dim=1) - radius).abs().max() <= 1
    angles = torch.atan2(places[:, 0], places[:, 1]).sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 2 * math.pi - angles[-1:]])
    assert (gaps * radius).max() <= 2  # pixels along the circle


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("shape", ["disc", "square", "turned square"])
def test_the_edge_of_a_shape_is_closed_and_one_pixel_wide(shape: str, size: int):
    half, middle = size * 0.21, size * 0.48
    pixels = {
        "disc": disc(size, radius=half, centre=(middle, middle)),
        "square": drawn(size, lambda y, x: torch.maximum((y - middle).abs(), (x - middle).abs()) < half),
        "turned square": drawn(size, lambda y, x: (y - middle).abs() + (x - middle).abs() < half),
    }[shape]
    edges = canny_edges(pixels)[0, 0]
    assert regions(edges) == 2
    assert torch.nn.functional.avg_pool2d(edges[None, None], 2, stride=1).max() < 1  # nowhere two by two
    assert edges.sum() < 2 * math.pi * half * 1.4


def test_colours_of_equal_luma_have_an_edge():
    luma = torch.tensor([0.299, 0.587, 0.114])
    colour = torch.tensor(BACKGROUND) + torch.tensor([58, -30, 2])
    assert abs((colour - torch.tensor(BACKGROUND)).float() @ luma) < 1
    pixels = torch.tensor(BACKGROUND).repeat(1, 1, 32, 32, 1)
    pixels[..., 16:, :] = colour.clamp(0, 255)
    edges = canny_edges(pixels.to(torch.uint8))[0, 0]
    assert edges.sum(dim=1).tolist() == [1.0] * 32 and edges[:, 15:17].sum() == 32


@pytest.mark.parametrize("level", [0, 117, 255])
def test_a_flat_frame_has_no_edges(level: int):
    assert canny_edges(torch.full((2, 3, 64, 64, 3), level, dtype=torch.uint8)).sum() == 0


def test_noise_below_the_threshold_makes_no_edges_and_above_it_does():
    noise = torch.randn(1, 4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert canny_edges((128 + 5 * noise).clamp(0, 255).to(torch.uint8)).sum() == 0
    assert canny_edges((128 + 60 * noise).clamp(0, 255).to(torch.uint8)).sum() > 0


def test_weak_edges_live_by_the_strong_ones_they_are_joined_to():
    """Two steps between the thresholds; the upper one grows steeper to the right until it is strong."""
    frame = torch.zeros(64, 64)
    frame[16:32] = torch.linspace(22, 60, 64)
    frame[44:] = 25
    pixels = frame[None, None, ..., None].expand(1, 1, 64, 64, 3).to(torch.uint8)
    edges = canny_edges(pixels)[0, 0]
    assert (edges[14:18].sum(dim=0) == 1).all()
    assert edges[40:].sum() == 0
    assert canny_edges(pixels, low=5.0, high=6.0)[0, 0, 40:].sum() == 64
    assert canny_edges(pixels, low=12.0, high=12.0)[0, 0, 14:18, :16].sum() == 0


def test_frames_do_not_see_each_other():
    frames = torch.cat([disc(64, radius=5.0 + step, centre=(30.0, 30.0)) for step in range(18)], dim=1)
    together = canny_edges(torch.cat([frames, frames.flip(1)]))
    assert together.shape == (2, 18, 64, 64)
    for step in (0, 9, 17):
        torch.testing.assert_close(together[0, step], canny_edges(frames[:, step : step + 1])[0, 0])
        torch.testing.assert_close(together[1, 17 - step], together[0, step])


def test_a_control_video_is_white_on_black():
    frames = disc(64, radius=15.0, centre=(32.0, 32.0))
    shown = edge_frames(frames)
    assert shown.dtype == torch.uint8 and shown.unique().tolist() == [0, 255]
    for channel in range(3):
        torch.testing.assert_close(shown[..., channel].float() / 255, canny_edges(frames))


def test_edges_agree_with_a_plain_reading_of_the_paper():
    pixels = torch.randint(0, 256, (18, 22, 3), generator=torch.Generator().manual_seed(5))
    plain = plain_canny(pixels.tolist(), low=12.0, high=30.0)
    edges = canny_edges(pixels.to(torch.uint8)[None, None], low=12.0, high=30.0)[0, 0]
    assert 20 < len(plain) < 200
    assert {(int(y), int(x)) for y, x in edges.nonzero()} == plain


def plain_canny(pixels: list[list[list[int]]], *, low: float, high: float) -> set[Place]:
    """Canny 1986, pixel by pixel, in double precision."""
    height, width = len(pixels), len(pixels[0])
    bell = [math.exp(-(k**2) / 2) for k in range(-3, 4)]
    bell = [weight / sum(bell) for weight in bell]

    def within(place: int, size: int) -> int:
        return min(max(place, 0), size - 1)

    def blurred(y: int, x: int, c: int) -> float:
        """Of the blurred plane, whose border goes on as the picture's does."""
        y, x = within(y, height), within(x, width)
        rows = range(-3, 4)
        return sum(bell[j + 3] * bell[i + 3] * pixels[within(y + j, height)][within(x + i, width)][c] for j in rows for i in rows)

    smooth = {(y, x, c): blurred(y, x, c) for y in range(-1, height + 1) for x in range(-1, width + 1) for c in range(3)}

    def gradient(y: int, x: int, c: int) -> tuple[float, float, float]:
        weights = ((-1, 0.125), (0, 0.25), (1, 0.125))
        down = sum(w * (smooth[y + 1, x + k, c] - smooth[y - 1, x + k, c]) for k, w in weights)
        right = sum(w * (smooth[y + k, x + 1, c] - smooth[y + k, x - 1, c]) for k, w in weights)
        return math.hypot(down, right), down, right

    slopes = {(y, x): max(gradient(y, x, c) for c in range(3)) for y in range(height) for x in range(width)}
    ridge: dict[Place, float] = {}
    for (y, x), (strength, down, right) in slopes.items():
        turn = math.degrees(math.atan2(down, right)) % 180
        j, i = next(
            step for upto, step in ((22.5, (0, 1)), (67.5, (1, 1)), (112.5, (1, 0)), (157.5, (1, -1)), (181, (0, 1))) if turn < upto
        )
        ahead, behind = (slopes.get((y + s * j, x + s * i), (0.0,))[0] for s in (1, -1))
        if strength >= low and strength > ahead and strength >= behind:
            ridge[y, x] = strength
    edges: set[Place] = set()
    front = [place for place, strength in ridge.items() if strength >= high]
    while front:
        y, x = front.pop()
        if (y, x) in ridge and (y, x) not in edges:
            edges.add((y, x))
            front += [(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
    return edges


def test_f1_forgives_a_pixel_and_no_more():
    truth = torch.zeros(1, 1, 32, 32)
    truth[..., 10, :] = 1
    assert edge_f1(truth, truth) == 1
    assert edge_f1(truth.roll(1, dims=2), truth) == 1
    assert edge_f1(truth.roll(2, dims=2), truth) == 0
    assert edge_f1(truth.roll(2, dims=2), truth, tolerance=2) == 1
    assert edge_f1(truth.roll(1, dims=2), truth, tolerance=0) == 0


def test_f1_counts_what_is_missing_and_what_is_too_much():
    truth = torch.zeros(1, 1, 32, 32)
    truth[..., 10, :] = 1
    half = truth.clone()
    half[..., 16:] = 0
    assert edge_f1(half, truth, tolerance=0) == pytest.approx(2 / 3)
    assert edge_f1(truth, half, tolerance=0) == pytest.approx(2 / 3)
    assert edge_f1(torch.zeros_like(truth), truth) == 0 == edge_f1(truth, torch.zeros_like(truth))
    assert edge_f1(torch.zeros_like(truth), torch.zeros_like(truth)) == 1
