"""frames -> backdrop -> how much of each pixel every thing covers -> its shape and poses

Everything is measured on frames pooled to 64 rows: the shapes of this world are coarse, and pooling calms an autoencoder's noise.
Lengths are fractions of the frame's height and the frame's centre is the origin, as in `world.py`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from aiprod_components.miniature.backdrop import Backdrop, distance_to_tones
from aiprod_components.miniature.render import SHAPE_DISTANCES
from aiprod_components.miniature.world import COLOURS, SHAPES

WORK_HEIGHT = 64
FOREGROUND = 30.0  # colour levels from the background's tones
PURE = 60.0  # colour levels from a palette colour
SOFTNESS = (1.3, 3.0)  # pixels at 64 rows over which an edge fades: as rendered, and as a video autoencoder leaves it
SYMMETRY = {"ball": 0, "square": 4, "triangle": 3, "star": 5, "ring": 0, "cross": 4}
_ANGLES, _RINGS = 72, 14


@dataclass(frozen=True)
class Cover:
    """How much of each pixel one thing covers; `hidden` is where a nearer thing is, so that nothing is known."""

    colour: str
    colour_error: float
    alpha: Float[Tensor, "T H W"]
    hidden: Bool[Tensor, "T H W"]


@dataclass(frozen=True)
class Track:
    """One thing over time: poses are (x, y, radius, angle), nan where the thing is not seen."""

    colour: str
    colour_error: float
    shape: str
    poses: Float[Tensor, "T 4"]
    mass: Float[Tensor, " T"]  # covered pixels at 64 rows
    whole: Bool[Tensor, " T"]  # neither cut by the frame's edge nor hidden
    hidden: Bool[Tensor, "T H W"]
    misfit: Float[Tensor, " T"]  # wrongly covered pixels per covered pixel
    blur: float  # width of the edges in pixels at 64 rows
    doubt: float  # share of the frames that look more like another shape


def pool(frames: Tensor) -> Float[Tensor, "T H W 3"]:
    """uint8 frames -> float frames of 64 rows."""
    height, width = frames.shape[1:3]
    small = (WORK_HEIGHT, round(width * WORK_HEIGHT / height))
    pixels = rearrange(frames.float(), "t h w c -> t c h w")
    return rearrange(F.adaptive_avg_pool2d(pixels, small), "t c h w -> t h w c")


# --- colours -> covers
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
        near_both = _grow(first > 0.6, 2) & _grow(second > 0.6, 2)
        between_rest = torch.where(near_both, between_rest, math.inf)
        rests = torch.stack([first_rest, second_rest, between_rest])
        unexplained, kind = rests.min(dim=0)
        alphas = [
            torch.where(kind == 0, first, torch.where(kind == 2, between, nothing)),
            torch.where(kind == 1, second, torch.where(kind == 2, 1 - between, nothing)),
        ]
    hidden = torch.zeros_like(away, dtype=torch.bool)
    return [Cover(name, error, alpha, hidden) for (name, _, error), alpha in zip(colours, alphas, strict=True)], unexplained


def _grow(mask: Bool[Tensor, "T H W"], by: int) -> Bool[Tensor, "T H W"]:
    return F.max_pool2d(mask.float(), 2 * by + 1, stride=1, padding=by) > 0.5


def keep_blob(alpha: Float[Tensor, "T H W"]) -> tuple[Float[Tensor, "T H W"], Float[Tensor, " T"]]:
    """The largest connected blob of each frame with its soft rim, and how many pixels lie in other blobs."""
    labels, count = ndimage.label((alpha > 0.4).numpy(), structure=np.pad(np.ones((1, 3, 3), dtype=int), ((1, 1), (0, 0), (0, 0))))
    if count == 0:
        return torch.zeros_like(alpha), torch.zeros(len(alpha))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = np.array([np.bincount(frame.ravel(), minlength=count + 1)[1:].argmax() + 1 for frame in labels])
    blob = torch.from_numpy(labels == largest[:, None, None])
    rim = _grow(blob, 2)
    return torch.where(rim, alpha, 0.0), reduce(torch.where(rim, 0.0, (alpha > 0.4).float()), "t h w -> t", "sum")


# --- covers -> shapes and poses
@cache
def shape_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    grid = (torch.arange(1024) + 0.5) / 512 - 1
    return 4 * (SHAPE_DISTANCES[shape](grid[None, :], grid[:, None]) < 0).float().mean().item()


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    return ((torch.arange(width) + 0.5 - width / 2) / height)[None, :], ((torch.arange(height) + 0.5) / height - 0.5)[:, None]


def draw(shape: str, poses: Float[Tensor, "N 4"], *, height: int, width: int, softness: float = SOFTNESS[0]) -> Float[Tensor, "N H W"]:
    """Soft coverage of a shape in given poses."""
    grid_x, grid_y = _grid(height, width)
    x, y, radius, angle = (value[:, None, None] for value in poses.unbind(dim=1))
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = ((grid_x - x) * cos + (grid_y - y) * sin) / radius, ((grid_y - y) * cos - (grid_x - x) * sin) / radius
    return (0.5 - SHAPE_DISTANCES[shape](u, v) * radius * height / softness).clamp(0, 1)


def profile(alpha: Float[Tensor, "T H W"], *, softness: float) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T S"], Float[Tensor, "T S"]]:
    """(x, y, mass in pixels), and for each shape its distance and best angle, comparing polar samples around the centre of mass."""
    height, width = alpha.shape[1:]
    grid_x, grid_y = _grid(height, width)
    mass = reduce(alpha, "t h w -> t", "sum")
    x = reduce(alpha * grid_x, "t h w -> t", "sum") / mass.clamp(min=1e-3)
    y = reduce(alpha * grid_y, "t h w -> t", "sum") / mass.clamp(min=1e-3)
    reach = (mass / math.pi).sqrt().clamp(min=1.0)  # radius of the disc of equal area, in pixels
    rings = (torch.arange(_RINGS) + 0.5) / _RINGS * 1.75
    turns = torch.arange(_ANGLES) * 2 * math.pi / _ANGLES
    u, v = rings[:, None] * torch.cos(turns), rings[:, None] * torch.sin(turns)
    at_x = (x[:, None, None] + u * reach[:, None, None] / height) * 2 * height / width
    at_y = (y[:, None, None] + v * reach[:, None, None] / height) * 2
    samples = F.grid_sample(alpha[:, None], torch.stack([at_x, at_y], dim=-1), align_corners=False)[:, 0]
    templates = torch.stack([_template(shape, u, v, reach / softness) for shape in SHAPES], dim=1)
    weight = (rings / rings.sum())[:, None]
    spectrum = torch.fft.rfft(samples * weight)[:, None] * torch.fft.rfft(templates).conj()
    overlap = torch.fft.irfft(spectrum.sum(dim=2), n=_ANGLES)
    best = overlap.max(dim=-1)
    energy = (samples.square() * weight).sum((1, 2))[:, None] + (templates.square() * weight).sum((2, 3))
    distance = (energy - 2 * best.values) / (templates.square() * weight).sum((2, 3))
    around = torch.stack([overlap.gather(-1, ((best.indices + step) % _ANGLES)[..., None])[..., 0] for step in (-1, 0, 1)])
    bend = (around[0] - 2 * around[1] + around[2]).clamp(max=-1e-9)
    angle = (best.indices + ((around[0] - around[2]) / (2 * bend)).clamp(-0.5, 0.5)) * 2 * math.pi / _ANGLES
    return torch.stack([x, y, mass], dim=1), distance, angle


def _template(shape: str, u: Tensor, v: Tensor, sharpness: Float[Tensor, " T"]) -> Float[Tensor, "T R A"]:
    radius = math.sqrt(math.pi / shape_area(shape))
    distance = SHAPE_DISTANCES[shape](u / radius, v / radius) * radius
    return (0.5 - distance * sharpness[:, None, None]).clamp(0, 1)


def refine(shape: str, poses: Float[Tensor, "N 4"], alpha: Tensor, known: Tensor, *, rounds: int) -> Float[Tensor, "N 4"]:
    """Gauss-Newton steps towards the poses whose drawing agrees with `alpha` wherever it is known."""
    height, width = alpha.shape[1:]
    nudges = torch.tensor([0.3 / height, 0.3 / height, 0.3 / height, 0.03])
    limits = torch.tensor([2.0 / height, 2.0 / height, 2.0 / height, 0.25])
    for _ in range(rounds):
        now = draw(shape, poses, height=height, width=width)
        slopes = [draw(shape, poses + nudge, height=height, width=width) - now for nudge in torch.diag(nudges)]
        jacobian = rearrange(torch.stack(slopes, dim=-1) * known[..., None], "n h w p -> n (h w) p")
        error = rearrange((alpha - now) * known, "n h w -> n (h w) 1")
        normal = jacobian.mT @ jacobian
        step = torch.linalg.solve(normal + 0.05 * torch.eye(4) * (1 + normal.diagonal(dim1=1, dim2=2)[..., None]), jacobian.mT @ error)
        poses = poses + (step[..., 0] * nudges).clamp(-limits, limits)
        poses = torch.cat([poses[:, :2], poses[:, 2:3].clamp(min=1.0 / height), poses[:, 3:]], dim=1)
    return poses


def misfit(shape: str, poses: Float[Tensor, "N 4"], alpha: Tensor, known: Tensor) -> Float[Tensor, " N"]:
    """Clearly wrong pixels per covered pixel; soft edges and noise are not clearly wrong."""
    drawn = draw(shape, poses, height=alpha.shape[1], width=alpha.shape[2])
    return (((drawn - alpha).abs() > 0.5) * known).sum((1, 2)) / (drawn * known).sum((1, 2)).clamp(min=4.0)


# --- covers -> tracks
def track_things(covers: list[Cover]) -> list[Track]:
    """Tracks of one or two things, the farther first where one hides a part of the other."""
    blobs = [keep_blob(cover.alpha)[0] for cover in covers]
    profiles = [_best_profile(blob) for blob in blobs]
    meets = torch.zeros(len(covers[0].alpha), dtype=torch.bool)
    order = list(range(len(covers)))
    if len(covers) == 2:
        meets = (_grow(blobs[0] > 0.3, 1) & (blobs[1] > 0.3)).sum((1, 2)) > 2
        if meets.any():  # the nearer thing keeps its outline
            order.sort(key=lambda index: -profiles[index][1][meets].min(dim=1).values.median().item())
    tracks = []
    for place, index in enumerate(order):
        hidden = torch.zeros_like(blobs[index], dtype=torch.bool)
        if place == 0 and meets.any():
            hidden = _grow(blobs[order[1]] > 0.2, 1) & meets[:, None, None]
            blobs[index] = torch.where(meets[:, None, None], covers[index].alpha, blobs[index])
        tracks.append(_track(covers[index], blobs[index], profiles[index], hidden))
    return tracks


def _best_profile(blob: Float[Tensor, "T H W"]) -> tuple[Tensor, Tensor, Tensor]:
    options = [profile(blob, softness=softness) for softness in SOFTNESS]
    return min(options, key=lambda option: option[1].min(dim=1).values.mean().item())


def _track(cover: Cover, blob: Tensor, profiles: tuple[Tensor, Tensor, Tensor], hidden: Bool[Tensor, "T H W"]) -> Track:
    centres, distances, angles = profiles
    height, width = blob.shape[1:]
    mass = reduce(blob, "t h w -> t", "sum")
    frame_edge = torch.ones(height, width, dtype=torch.bool)
    frame_edge[1:-1, 1:-1] = False
    cut = ((blob > 0.4) & frame_edge).sum((1, 2)) > 2
    whole = ~cut & ~hidden.any(dim=2).any(dim=1) & (mass > 8)
    voters = whole & (mass > 25)
    if voters.sum() >= 2:
        index = int((distances * mass[:, None])[voters].mean(dim=0).argmin())
        shape = SHAPES[index]
        doubt = (distances[voters].min(dim=1).values + 0.02 < distances[voters, index]).float().mean().item()
    else:
        shape, doubt = _guess_shape(blob, hidden, mass), 0.0
    radius = (mass / shape_area(shape)).sqrt() / height
    poses = torch.stack([centres[:, 0], centres[:, 1], radius, angles[:, SHAPES.index(shape)]], dim=1)
    poses = torch.where(whole[:, None], poses, math.nan)
    poses = _fill(shape, poses, blob, hidden, mass)
    seen = ~poses[:, 0].isnan()
    wrong = torch.full_like(mass, math.nan)
    wrong[seen] = misfit(shape, poses[seen], cover.alpha[seen], (~hidden[seen]).float())
    return Track(cover.colour, cover.colour_error, shape, poses, mass, whole, hidden, wrong, _edge_width(shape, poses, blob, whole), doubt)


def _start_pose(blob: Float[Tensor, "H W"], hidden: Bool[Tensor, "H W"]) -> Float[Tensor, "4"]:
    """A first guess of a partly hidden thing: the box around what is seen of it."""
    height, width = blob.shape
    grid_x, grid_y = _grid(height, width)
    seen = blob > 0.5
    xs, ys = grid_x.expand(height, width)[seen], grid_y.expand(height, width)[seen]
    box = torch.stack([xs.min(), xs.max(), ys.min(), ys.max()])
    size = max((box[1] - box[0]).item(), (box[3] - box[2]).item())
    return torch.stack([(box[0] + box[1]) / 2, (box[2] + box[3]) / 2, torch.tensor(size / 2), torch.tensor(0.0)])


def _guess_shape(blob: Tensor, hidden: Tensor, mass: Tensor) -> str:
    """The shape whose drawing fits the first frames best, for things that are never seen whole."""
    first = [index for index in range(len(blob)) if mass[index] > 12][:3]
    if not first:
        return SHAPES[0]
    start = torch.stack([_start_pose(blob[index], hidden[index]) for index in first])
    known = (~hidden[first]).float()
    errors = {}
    for shape in SHAPES:
        poses = refine(shape, start, blob[first], known, rounds=8)
        errors[shape] = misfit(shape, poses, blob[first], known).mean().item()
    return min(errors, key=lambda shape: errors[shape])


def _fill(shape: str, poses: Tensor, blob: Tensor, hidden: Tensor, mass: Tensor) -> Float[Tensor, "T 4"]:
    """Fit the frames in which the thing is cut or hidden, each from its neighbour's pose."""
    poses = poses.clone()
    known = (~hidden).float()
    if poses[:, 0].isnan().all():
        first = int((mass > 12).float().argmax())
        if mass[first] <= 12:
            return poses
        poses[first] = refine(shape, _start_pose(blob[first], hidden[first])[None], blob[first : first + 1], known[first : first + 1], rounds=10)[0]
    for step in (1, -1):
        for index in range(len(poses))[::step]:
            before = index - step
            if not 0 <= before < len(poses) or not poses[index, 0].isnan() or poses[before, 0].isnan() or mass[index] < 6:
                continue
            start = poses[before]
            if 0 <= before - step < len(poses) and not poses[before - step, 0].isnan():
                start = torch.cat([2 * start[:3] - poses[before - step][:3], start[3:]])
            here = slice(index, index + 1)
            poses[index] = refine(shape, start[None], blob[here], known[here], rounds=4)[0]
    return poses


def _edge_width(shape: str, poses: Tensor, blob: Tensor, whole: Tensor) -> float:
    """How many pixels an edge takes to fade: the soft pixels against those of a drawing whose edges take `SOFTNESS[0]`."""
    if not whole.any():
        return 0.0
    drawn = draw(shape, poses[whole], height=blob.shape[1], width=blob.shape[2])
    return (SOFTNESS[0] * (blob[whole] * (1 - blob[whole])).sum() / (drawn * (1 - drawn)).sum().clamp(min=1.0)).item()
