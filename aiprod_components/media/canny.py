"""frames -> gradients -> ridges one pixel wide -> the edges among them: strong ones, and weak ones that are joined to them

In torch, so that the frames' own device does it; these few lines are all that a library of pictures would be needed for.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

BLUR = 1.0  # deviation of the Gaussian, in pixels
RADIUS = 3
CHUNK = 16  # frames at once: the gradients of a long clip would fill the memory
# Magnitudes are rounded to this part of a level per pixel, so that the two sides of an ideal step tie on every device.
FINENESS = 64
# Direction of the gradient, in eighths of a turn modulo half a turn -> the neighbour ahead, (down, right).
AHEAD = ((0, 1), (1, 1), (1, 0), (1, -1))


def canny_edges(frames: UInt8[Tensor, "B T H W 3"], *, low: float = 5.0, high: float = 12.0) -> Float[Tensor, "B T H W"]:
    """Edge maps (0 or 1) by Canny 1986. Thresholds in levels per pixel after the blur: a step of 100 levels has 32."""
    flat = rearrange(frames, "b t h w c -> (b t) c h w")
    edges = torch.cat([_edges(chunk, low=low, high=high) for chunk in flat.split(CHUNK)])
    return rearrange(edges.float(), "(b t) h w -> b t h w", b=frames.shape[0])


def edge_frames(frames: UInt8[Tensor, "B T H W 3"]) -> UInt8[Tensor, "B T H W 3"]:
    """A control video: the edges in white on black."""
    return repeat(canny_edges(frames).mul(255).to(torch.uint8), "b t h w -> b t h w c", c=3).contiguous()


def edge_f1(ours: Float[Tensor, "B T H W"], truth: Float[Tensor, "B T H W"], *, tolerance: int = 1) -> float:
    """Harmonic mean of the shares of each map's edges that have one of the other within `tolerance` pixels; 1 when neither has any."""
    a, b = ours > 0, truth > 0
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision = (a & _widened(b, by=tolerance)).sum() / a.sum()
    recall = (b & _widened(a, by=tolerance)).sum() / b.sum()
    return (2 * precision * recall / (precision + recall).clamp(min=1e-12)).item()


def _edges(pixels: UInt8[Tensor, "N 3 H W"], *, low: float, high: float) -> Bool[Tensor, "N H W"]:
    down, right = _gradient(_blurred(pixels.float().contiguous()))
    strength = (down.hypot(right) * FINENESS).round() / FINENESS
    ridge = _is_ridge(strength, down=down, right=right)
    return _joined(ridge & (strength >= high), among=ridge & (strength >= low))


def _blurred(planes: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    bell = [math.exp(-(k**2) / (2 * BLUR**2)) for k in range(-RADIUS, RADIUS + 1)]
    weights = [weight / sum(bell) for weight in bell]
    return _filtered(planes, down=weights, right=weights)


def _gradient(planes: Float[Tensor, "N 3 H W"]) -> tuple[Float[Tensor, "N H W"], Float[Tensor, "N H W"]]:
    """Sobel's, in levels per pixel, of the channel in which it is largest: shapes of equal luma have edges too."""
    slope, smooth = [-0.5, 0.0, 0.5], [0.25, 0.5, 0.25]
    down, right = _filtered(planes, down=slope, right=smooth), _filtered(planes, down=smooth, right=slope)
    largest = (down.square() + right.square()).argmax(dim=1, keepdim=True)
    return down.gather(1, largest)[:, 0], right.gather(1, largest)[:, 0]


def _filtered(planes: Float[Tensor, "N C H W"], *, down: list[float], right: list[float]) -> Float[Tensor, "N C H W"]:
    """A separable filter; beyond the frame its border goes on. By sums, since a GPU's convolutions round more than ties can bear."""
    for dim, weights in ((-1, right), (-2, down)):
        half, size = len(weights) // 2, planes.shape[dim]
        padded = F.pad(planes, (half, half, 0, 0) if dim == -1 else (0, 0, half, half), mode="replicate")
        planes = torch.zeros_like(planes)
        for place, weight in enumerate(weights):
            planes.add_(padded.narrow(dim, place, size), alpha=weight)
    return planes


def _is_ridge(strength: Float[Tensor, "N H W"], *, down: Float[Tensor, "N H W"], right: Float[Tensor, "N H W"]) -> Bool[Tensor, "N H W"]:
    """Where the gradient is largest along its own direction; of two that tie, the one ahead."""
    eighth = (torch.atan2(down, right) / (torch.pi / 4)).round().long() % 4
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]
    ridge = torch.zeros_like(strength, dtype=torch.bool)
    for direction, (y, x) in enumerate(AHEAD):
        ahead = padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[:, 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        ridge |= (eighth == direction) & (strength > ahead) & (strength >= behind)
    return ridge


def _joined(strong: Bool[Tensor, "N H W"], *, among: Bool[Tensor, "N H W"]) -> Bool[Tensor, "N H W"]:
    """Hysteresis: grows the strong edges along `among` until nothing is added."""
    grown = strong
    while True:
        wider = _widened(grown, by=1) & among
        if torch.equal(wider, grown):
            return grown
        grown = wider


def _widened(edges: Bool[Tensor, "*B H W"], *, by: int) -> Bool[Tensor, "*B H W"]:
    """Every pixel within `by` of an edge, diagonals included."""
    return F.max_pool2d(edges.float(), 2 * by + 1, stride=1, padding=by) > 0
