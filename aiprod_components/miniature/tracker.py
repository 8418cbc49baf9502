"""covers -> a shape for each thing -> its poses over time

A thing that is seen whole is compared with templates around its centre of mass; one that the frame cuts or a nearer thing hides is
fitted by drawing it. Lengths are fractions of the frame's height and the frame's centre is the origin, as in `world.py`.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from aiprod_components.miniature.covers import Cover, grow, keep_blob
from aiprod_components.miniature.render import SHAPE_DISTANCES
from aiprod_components.miniature.world import SHAPES

BLURS = (0.4, 0.7, 1.0, 1.4, 2.0, 2.8)  # standard deviations in pixels at 64 rows: from as rendered to unusably blurred
HIDDEN_RIM = 1  # pixels around a nearer thing in which two colours mix
EDGE = 1.2  # pixels over which an edge fades as rendered
SYMMETRY = {"ball": 0, "square": 4, "triangle": 3, "star": 5, "ring": 0, "cross": 4}
_ANGLES, _RINGS, _REACH = 72, 14, 1.75
_RELATIVE_BLURS = tuple(0.03 * 1.25**step for step in range(14))  # of a template, whose disc of equal area has radius 1


@dataclass(frozen=True)
class Track:
    """One thing over time: poses are (x, y, radius, angle), nan where the thing is not seen."""

    colour: str
    colour_error: float
    shape: str
    poses: Float[Tensor, "T 4"]
    mass: Float[Tensor, " T"]  # covered pixels at 64 rows
    share: Float[Tensor, " T"]  # of the thing, how much is seen
    hidden: Bool[Tensor, "T H W"]
    misfit: Float[Tensor, " T"]  # wrongly covered pixels per covered pixel
    blur: float  # standard deviation in pixels at 64 rows; 0 if never seen whole
    doubt: float  # share of the frames that look more like another shape


# --- covers -> shapes and poses
@cache
def shape_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    grid = (torch.arange(1024) + 0.5) / 512 - 1
    return 4 * (SHAPE_DISTANCES[shape](grid[None, :], grid[:, None]) < 0).float().mean().item()


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    return ((torch.arange(width) + 0.5 - width / 2) / height)[None, :], ((torch.arange(height) + 0.5) / height - 0.5)[:, None]


def draw(shape: str, poses: Float[Tensor, "N 4"], *, height: int, width: int, blur: float) -> Float[Tensor, "N H W"]:
    """Coverage of a shape in given poses, as blurred as the clip is."""
    grid_x, grid_y = _grid(height, width)
    x, y, radius, angle = (value[:, None, None] for value in poses.unbind(dim=1))
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = ((grid_x - x) * cos + (grid_y - y) * sin) / radius, ((grid_y - y) * cos - (grid_x - x) * sin) / radius
    sharp = (0.5 - SHAPE_DISTANCES[shape](u, v) * radius * height / EDGE).clamp(0, 1)
    if blur <= BLURS[0]:
        return sharp
    kernel = torch.exp(-(torch.arange(-4, 5) ** 2) / (2 * (blur**2 - BLURS[0] ** 2)))
    kernel = (kernel / kernel.sum())[None, None, None]
    return F.conv2d(F.conv2d(sharp[:, None], kernel, padding=(0, 4)), kernel.mT, padding=(4, 0))[:, 0]


@cache
def _polar() -> tuple[Float[Tensor, "R 1"], Float[Tensor, "R A"], Float[Tensor, "R A"]]:
    """Rings around a centre (radius 1: the disc of equal area) and the samples' x and y on them."""
    rings = ((torch.arange(_RINGS) + 0.5) / _RINGS * _REACH)[:, None]
    turns = torch.arange(_ANGLES) * 2 * math.pi / _ANGLES
    return rings, rings * torch.cos(turns), rings * torch.sin(turns)


@cache
def _templates() -> Float[Tensor, "K S R A"]:
    """Every shape at every relative blur, on polar samples."""
    _, u, v = _polar()
    extent, per_unit = 2.5, 32
    axis = (torch.arange(int(2 * extent * per_unit)) + 0.5) / per_unit - extent
    images = []
    for shape in SHAPES:
        radius = math.sqrt(math.pi / shape_area(shape))
        distance = SHAPE_DISTANCES[shape](axis[None, :] / radius, axis[:, None] / radius) * radius
        images.append((0.5 - distance * per_unit).clamp(0, 1).numpy())
    blurred = [[ndimage.gaussian_filter(image, blur * per_unit) for image in images] for blur in _RELATIVE_BLURS]
    where = torch.stack([u, v], dim=-1) / extent
    stack = torch.from_numpy(np.stack([np.stack(row) for row in blurred]))
    return F.grid_sample(stack, where[None].expand(len(stack), -1, -1, -1), align_corners=False)


@dataclass(frozen=True)
class Profiles:
    """What each frame's blob looks like: its centre and mass, its distance from every shape and the angle at which that is reached."""

    centre: Float[Tensor, "T 2"]
    distances: Float[Tensor, "T S"]
    angles: Float[Tensor, "T S"]
    blur: float


def profile(alpha: Float[Tensor, "T H W"]) -> Profiles:
    """Compare polar samples around the centre of mass with the templates at the blur that suits the clip best."""
    height, width = alpha.shape[1:]
    grid_x, grid_y = _grid(height, width)
    mass = reduce(alpha, "t h w -> t", "sum")
    x = reduce(alpha * grid_x, "t h w -> t", "sum") / mass.clamp(min=1e-3)
    y = reduce(alpha * grid_y, "t h w -> t", "sum") / mass.clamp(min=1e-3)
    reach = (mass / math.pi).sqrt().clamp(min=1.0)  # radius of the disc of equal area, in pixels
    rings, u, v = _polar()
    at_x = (x[:, None, None] + u * reach[:, None, None] / height) * 2 * height / width
    at_y = (y[:, None, None] + v * reach[:, None, None] / height) * 2
    samples = F.grid_sample(alpha[:, None], torch.stack([at_x, at_y], dim=-1), align_corners=False)[:, 0]
    options = []
    for blur in BLURS:
        level = ((blur / reach / _RELATIVE_BLURS[0]).log() / math.log(1.25)).round().long().clamp(0, len(_RELATIVE_BLURS) - 1)
        distances, angles = _match(samples, _templates()[level], rings / rings.sum())
        options.append(Profiles(torch.stack([x, y], dim=1), distances, angles, blur))
    return min(options, key=lambda option: option.distances[mass > 8].min(dim=1).values.mean().nan_to_num(math.inf).item())


def _match(samples: Float[Tensor, "T R A"], templates: Float[Tensor, "T S R A"], weight: Float[Tensor, "R 1"]) -> tuple[Tensor, Tensor]:
    """Squared distance per template energy, and the angle at which it is least, by circular correlation."""
    spectrum = torch.fft.rfft(samples * weight)[:, None] * torch.fft.rfft(templates).conj()
    overlap = torch.fft.irfft(spectrum.sum(dim=2), n=_ANGLES)
    best = overlap.max(dim=-1)
    energy = (templates.square() * weight).sum((2, 3))
    distances = ((samples.square() * weight).sum((1, 2))[:, None] + energy - 2 * best.values) / energy
    before, at, after = (overlap.gather(-1, ((best.indices + step) % _ANGLES)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp(max=-1e-9)
    return distances, (best.indices + ((before - after) / (2 * bend)).clamp(-0.5, 0.5)) * 2 * math.pi / _ANGLES


def refine(shape: str, poses: Float[Tensor, "N 4"], view: "View", *, rounds: int) -> Float[Tensor, "N 4"]:
    """Gauss-Newton steps towards the poses whose drawing agrees with what is known; radius and angle hold on to where they start."""
    height, width = view.alpha.shape[1:]
    nudges = torch.tensor([0.3 / height, 0.3 / height, 0.3 / height, 0.03])
    limits = torch.tensor([2.0 / height, 2.0 / height, 2.0 / height, 0.25])
    hold = torch.diag(torch.tensor([0.05, 0.05, view.hold, view.hold]))
    first = poses
    for _ in range(rounds):
        now = draw(shape, poses, height=height, width=width, blur=view.blur)
        slopes = [draw(shape, poses + nudge, height=height, width=width, blur=view.blur) - now for nudge in torch.diag(nudges)]
        jacobian = rearrange(torch.stack(slopes, dim=-1) * view.known[..., None], "n h w p -> n (h w) p")
        error = rearrange((view.alpha - now) * view.known, "n h w -> n (h w) 1")
        normal = jacobian.mT @ jacobian
        pull = hold @ ((first - poses) / nudges)[..., None]
        damping = 0.05 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2))
        step = torch.linalg.solve(normal + damping + hold, jacobian.mT @ error + pull)
        poses = poses + (step[..., 0] * nudges).clamp(-limits, limits)
        poses = torch.cat([poses[:, :2], poses[:, 2:3].clamp(min=1.0 / height), poses[:, 3:]], dim=1)
    return poses


@dataclass(frozen=True)
class View:
    """Frames to fit a pose to: coverage, where it is known (1 or 0), its blur, and how firmly radius and angle keep their start."""

    alpha: Float[Tensor, "N H W"]
    known: Float[Tensor, "N H W"]
    blur: float
    hold: float = 0.05

    def __getitem__(self, frames: slice | list[int]) -> "View":
        return View(self.alpha[frames], self.known[frames], self.blur, self.hold)


def misfit(shape: str, poses: Float[Tensor, "N 4"], view: View) -> Float[Tensor, " N"]:
    """Clearly wrong pixels per covered pixel; noise and a slightly wrong blur are not clearly wrong."""
    drawn = draw(shape, poses, height=view.alpha.shape[1], width=view.alpha.shape[2], blur=view.blur)
    return (((drawn - view.alpha).abs() > 0.4) * view.known).sum((1, 2)) / (drawn * view.known).sum((1, 2)).clamp(min=12.0)


# --- covers -> tracks
def track_things(covers: list[Cover]) -> list[Track]:
    """Tracks of one or two things, the farther first where one hides a part of the other."""
    blobs = [keep_blob(cover.alpha) for cover in covers]
    profiles = [profile(blob) for blob in blobs]
    nothing = torch.zeros_like(blobs[0], dtype=torch.bool)
    if len(covers) < 2:
        return [_track(covers[0], blobs[0], profiles[0], nothing)]
    meets = (grow(blobs[0] > 0.3, 1) & (blobs[1] > 0.3)).sum((1, 2)) > 2
    if not meets.any():
        return [_track(*parts, nothing) for parts in zip(covers, blobs, profiles, strict=True)]
    far = _farther(covers, profiles, meets)
    near = _track(covers[1 - far], blobs[1 - far], profiles[1 - far], nothing)
    hidden = grow(blobs[1 - far] > 0.2, HIDDEN_RIM) & meets[:, None, None]
    behind = torch.where(meets[:, None, None], covers[far].alpha, blobs[far])
    as_blurred = replace(profiles[far], blur=near.blur or profiles[far].blur)  # a bite out of an outline looks like blur
    return [_track(covers[far], behind, as_blurred, hidden), near]


def _farther(covers: list[Cover], profiles: list[Profiles], meets: Bool[Tensor, " T"]) -> int:
    """Which of two things that meet is behind: the one without a shape's outline or, if that is unclear, the one that goes on behind."""
    strange = [item.distances[meets].min(dim=1).values.median().item() for item in profiles]
    if max(strange) > 4 * min(strange):
        return int(strange[1] > strange[0])
    frames = meets.nonzero()[:, 0][:3].tolist()
    covered = []
    for index, cover in enumerate(covers):
        other = covers[1 - index].alpha[frames]
        view = View(cover.alpha[frames], (~grow(other > 0.2, 1)).float(), profiles[index].blur)
        shape, poses = _guess_shape(view)
        drawn = draw(shape, poses, height=other.shape[1], width=other.shape[2], blur=view.blur)
        covered.append((drawn * (other > 0.5)).sum().item())
    return int(covered[1] > covered[0])


def _track(cover: Cover, blob: Tensor, profiles: Profiles, hidden: Bool[Tensor, "T H W"]) -> Track:
    height, width = blob.shape[1:]
    mass = reduce(blob * ~hidden, "t h w -> t", "sum")
    frame_edge = torch.ones(height, width, dtype=torch.bool)
    frame_edge[1:-1, 1:-1] = False
    cut = ((blob > 0.3) & frame_edge).any(dim=2).any(dim=1)
    whole = ~cut & ~hidden.any(dim=2).any(dim=1) & (mass > 8)
    voters = whole & (mass > 25)
    view = View(blob, (~hidden).float(), profiles.blur)
    poses, doubt = torch.full((len(blob), 4), math.nan), 0.0
    if voters.sum() >= 2:
        index = int((profiles.distances * mass[:, None])[voters].mean(dim=0).argmin())
        shape = SHAPES[index]
        doubt = (profiles.distances[voters].min(dim=1).values + 0.02 < profiles.distances[voters, index]).float().mean().item()
        radius = (mass / shape_area(shape)).sqrt() / height
        direct = torch.cat([profiles.centre, radius[:, None], profiles.angles[:, index, None]], dim=1)
        poses = torch.where(whole[:, None], direct, math.nan)
    else:
        first = [index for index in range(len(blob)) if mass[index] > 12][:3]
        shape, fitted = _guess_shape(view[first]) if first else (SHAPES[0], poses[:0])
        poses[first] = fitted
    poses = _fill(shape, poses, view, mass)
    seen = ~poses[:, 0].isnan()
    share = (mass / (shape_area(shape) * (poses[:, 2] * height).square())).nan_to_num(0.0).clamp(0, 1)
    sample = (whole & seen).nonzero()[:, 0][:: max(int(whole.sum()) // 6, 1)]
    blur = _blur(shape, poses[sample], blob[sample]) if len(sample) else 0.0
    wrong = torch.full_like(mass, math.nan)
    wrong[seen] = misfit(shape, poses[seen], View(cover.alpha[seen], view.known[seen], blur or view.blur))
    return Track(cover.colour, cover.colour_error, shape, poses, mass, share, hidden, wrong, blur, doubt)


def _guess_shape(view: View) -> tuple[str, Float[Tensor, "N 4"]]:
    """The shape whose drawing fits best, and its poses, for a thing that is not seen whole: started from the box around what is seen."""
    height, width = view.alpha.shape[1:]
    grid_x, grid_y = _grid(height, width)
    starts = []
    for seen in view.alpha > 0.5:
        xs, ys = grid_x.expand(height, width)[seen], grid_y.expand(height, width)[seen]
        if not len(xs):
            xs, ys = torch.zeros(1), torch.zeros(1)
        size = max((xs.max() - xs.min()).item(), (ys.max() - ys.min()).item(), 4 / height)
        starts.append(torch.stack([(xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2, torch.tensor(size / 2), torch.tensor(0.0)]))
    fits = {shape: refine(shape, torch.stack(starts), view, rounds=8) for shape in SHAPES}
    shape = min(SHAPES, key=lambda shape: _soft_errors(shape, fits[shape], view).sum().item())
    return shape, fits[shape]


def _soft_errors(shape: str, poses: Float[Tensor, "N 4"], view: View) -> Float[Tensor, " N"]:
    drawn = draw(shape, poses, height=view.alpha.shape[1], width=view.alpha.shape[2], blur=view.blur)
    return ((drawn - view.alpha).square() * view.known).sum((1, 2))


def _fill(shape: str, poses: Float[Tensor, "T 4"], view: View, mass: Float[Tensor, " T"]) -> Float[Tensor, "T 4"]:
    """Fit the frames in which the thing is cut or hidden, each starting from its neighbours' poses, if enough of it is seen."""
    poses = poses.clone()
    height = view.alpha.shape[1]
    firm = View(view.alpha, view.known, view.blur, hold=1.0)
    least = torch.where(view.known.amin(dim=(1, 2)) < 1, 0.3, 0.15)  # what a neighbour hides is harder to guess than what the frame cuts
    for step in (1, -1):
        for index in range(len(poses))[::step]:
            before = index - step
            if not 0 <= before < len(poses) or not poses[index, 0].isnan() or poses[before, 0].isnan():
                continue
            if mass[index] < max(8.0, least[index] * shape_area(shape) * (poses[before, 2] * height).square()):
                continue
            starts = [poses[before]]
            if 0 <= before - step < len(poses) and not poses[before - step, 0].isnan():
                starts.append(poses[before] + _change(shape, poses[before - step], poses[before]))  # wrong where a thing bounces
            here = firm[[index] * len(starts)]
            options = refine(shape, _align(shape, torch.stack(starts), here), here, rounds=4)
            pose = options[_soft_errors(shape, options, here).argmin()]
            if abs(math.log(pose[2] / poses[before, 2])) < 0.15:  # a size that jumps means that the thing is lost
                poses[index] = pose
    return poses


def _change(shape: str, earlier: Float[Tensor, "4"], later: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
    """The step from one pose to the next; the angle takes the shorter way round the shape's symmetry."""
    change = later - earlier
    sector = 2 * math.pi / max(SYMMETRY[shape], 1)
    change[3] = torch.remainder(change[3] + sector / 2, sector) - sector / 2
    return change


def _align(shape: str, poses: Float[Tensor, "N 4"], view: View) -> Float[Tensor, "N 4"]:
    """Move poses so that what should be seen of them lies where something is seen."""
    height, width = view.alpha.shape[1:]
    grid = torch.stack([axis.expand(height, width) for axis in _grid(height, width)])
    drawn = draw(shape, poses, height=height, width=width, blur=view.blur) * view.known
    seen = view.alpha * view.known
    centres = [(grid * part[:, None]).sum((2, 3)) / part.sum((1, 2)).clamp(min=1e-3)[:, None] for part in (seen, drawn)]
    move = torch.where(drawn.sum((1, 2))[:, None] > 1, centres[0] - centres[1], 0.0)
    return torch.cat([poses[:, :2] + move, poses[:, 2:]], dim=1)


def _blur(shape: str, poses: Float[Tensor, "N 4"], blob: Float[Tensor, "N H W"]) -> float:
    """The blur at which drawings of the thing have as many soft pixels as its blob has."""
    height, width = blob.shape[1:]
    drawn = [draw(shape, poses, height=height, width=width, blur=blur) for blur in BLURS]
    softness = [(image * (1 - image)).sum().item() for image in drawn]
    return float(np.interp((blob * (1 - blob)).sum().item(), softness, BLURS))
