"""random numbers -> scene: what a clip of the procedural world shows

The world's ground truth is known: one or two flat shapes move over a background while a camera looks on.
Lengths are fractions of the frame's height, y points down, times are seconds, the frame's centre is the origin.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (50, 180, 60),
    "blue": (50, 90, 235),
    "yellow": (245, 220, 50),
    "purple": (140, 60, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 215, 230),
    "white": (245, 245, 245),
    "pink": (250, 145, 195),
}
SHAPES: tuple[str, ...] = ("ball", "square", "triangle", "star", "ring", "cross")
ROUND_SHAPES = ("ball", "ring")  # they cannot be seen to spin
PATTERNS: tuple[str, ...] = ("plain", "stripes", "dots", "checkerboard")
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (10, 10, 12),
    "gray": (115, 115, 118),
    "navy": (15, 25, 75),
    "brown": (95, 60, 35),
    "teal": (15, 105, 105),
}
SIZES: dict[str, float] = {"small": 0.10, "big": 0.18}
SPEEDS: tuple[str, ...] = ("slowly", "quickly")
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below", "in front of")

# (shape, colour) pairs that training never sees: the unseen combinations of the quality report.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("ball", "cyan"),
        ("square", "orange"),
        ("triangle", "purple"),
        ("star", "green"),
        ("ring", "red"),
        ("cross", "pink"),
    }
)


# --- scenes
@dataclass(frozen=True)
class Thing:
    """One object: what it is, where it starts (x, y) and what it does."""

    shape: str
    colour: str
    size: str
    motion: str
    speed: str
    start: tuple[float, float]
    phase: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What a clip shows. Later things are nearer the camera."""

    things: tuple[Thing, ...]
    background: str
    pattern: str = "plain"
    camera: str = "static"
    relation: str | None = None


@dataclass(frozen=True)
class SceneMix:
    """How often a sampled scene has a second object, a pattern, a moving camera; which (shape, colour) pairs and motions it may use."""

    two_objects: float = 0.0
    patterns: float = 0.0
    cameras: float = 0.0
    pairs: str = "seen"  # "seen" (never a held-out pair), "unseen" (only held-out pairs) or "all"
    motions: tuple[str, ...] | None = None  # of a thing that is alone; None: every motion


# --- motions
@dataclass(frozen=True)
class Pose:
    """Offset from the start (x, y), scale of the size and angle in radians, each over time."""

    x: Tensor
    y: Tensor
    scale: Tensor
    angle: Tensor


BOUNCE_HEIGHT = 0.42
BOUNCE_PERIOD = {"slowly": 1.6, "quickly": 0.9}
TRAVEL = {"slowly": 0.15, "quickly": 0.32}
ORBIT_RADIUS = 0.24


def _still(t: Tensor, speed: str, phase: float) -> Pose:
    return Pose(torch.zeros_like(t), torch.zeros_like(t), torch.ones_like(t), torch.zeros_like(t))


def _travel(dx: int, dy: int) -> "Motion":
    def motion(t: Tensor, speed: str, phase: float) -> Pose:
        return replace(_still(t, speed, phase), x=dx * TRAVEL[speed] * t, y=dy * TRAVEL[speed] * t)

    return motion


def _bounce(t: Tensor, speed: str, phase: float) -> Pose:
    """Starts at the top of a parabola above the floor; touches it at period * (n + 1/2 - phase)."""
    u = torch.remainder(t / BOUNCE_PERIOD[speed] + phase + 0.5, 1.0)
    return replace(_still(t, speed, phase), y=-BOUNCE_HEIGHT * 4 * u * (1 - u))


def _scale(rates: dict[str, float]) -> "Motion":
    def motion(t: Tensor, speed: str, phase: float) -> Pose:
        return replace(_still(t, speed, phase), scale=torch.exp(rates[speed] * t))

    return motion


def _spin(t: Tensor, speed: str, phase: float) -> Pose:
    rate = {"slowly": 0.9, "quickly": 2.2}[speed]
    return replace(_still(t, speed, phase), angle=rate * t)


def _orbit(t: Tensor, speed: str, phase: float) -> Pose:
    turn = 2 * math.pi * ({"slowly": 0.25, "quickly": 0.5}[speed] * t + phase)
    return replace(_still(t, speed, phase), x=ORBIT_RADIUS * torch.cos(turn), y=ORBIT_RADIUS * torch.sin(turn))


Motion = Callable[[Tensor, str, float], Pose]
MOTIONS: dict[str, Motion] = {
    "moves left": _travel(-1, 0),
    "moves right": _travel(1, 0),
    "moves up": _travel(0, -1),
    "moves down": _travel(0, 1),
    "bounces": _bounce,
    "stays still": _still,
    "grows": _scale({"slowly": 0.17, "quickly": 0.33}),
    "shrinks": _scale({"slowly": -0.17, "quickly": -0.36}),
    "spins": _spin,
    "orbits": _orbit,
}
HEADINGS = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}

# camera: (shift x per second, shift y per second, zoom rate per second) of what the camera sees
CAMERAS: dict[str, tuple[float, float, float]] = {
    "static": (0.0, 0.0, 0.0),
    "dolly in": (0.0, 0.0, 0.22),
    "dolly out": (0.0, 0.0, -0.22),
    "dolly left": (0.14, 0.0, 0.0),
    "dolly right": (-0.14, 0.0, 0.0),
    "jib up": (0.0, 0.14, 0.0),
    "jib down": (0.0, -0.14, 0.0),
}


# --- sampling
CLIP_SECONDS = 2.0
MARGIN = 0.03


def sample_scene(rng: random.Random, *, mix: SceneMix) -> Scene:
    """A random scene in which every object stays in the frame for `CLIP_SECONDS` under a static camera."""
    background = rng.choice(list(BACKGROUNDS))
    pattern = rng.choice(PATTERNS[1:]) if rng.random() < mix.patterns else "plain"
    camera = rng.choice(list(CAMERAS)[1:]) if rng.random() < mix.cameras else "static"
    if rng.random() < mix.two_objects:
        things, relation = _sample_pair(rng, mix=mix)
        return Scene(things, background, pattern, camera, relation)
    return Scene((_sample_thing(rng, mix=mix, motions=list(mix.motions or MOTIONS)),), background, pattern, camera)


def _sample_thing(rng: random.Random, *, mix: SceneMix, motions: list[str]) -> Thing:
    pairs = [(s, c) for s in SHAPES for c in COLOURS if mix.pairs == "all" or ((s, c) in HELD_OUT_PAIRS) == (mix.pairs == "unseen")]
    shape, colour = rng.choice(pairs)
    motion = rng.choice([m for m in motions if m != "spins" or shape not in ROUND_SHAPES])
    thing = Thing(shape, colour, rng.choice(list(SIZES)), motion, rng.choice(SPEEDS), (0.0, 0.0), rng.random())
    return replace(thing, start=_sample_start(rng, thing=thing))


def _sample_start(rng: random.Random, *, thing: Thing) -> tuple[float, float]:
    """A start from which the whole track stays in the frame."""
    track = MOTIONS[thing.motion](torch.linspace(0, CLIP_SECONDS, 33), thing.speed, thing.phase)
    reach = 0.5 - MARGIN - SIZES[thing.size] * track.scale.max().item()
    if thing.motion == "orbits":
        return (0.0, 0.0)
    if thing.motion == "bounces":
        return (rng.uniform(-reach, reach), reach)

    def within(offset: Tensor) -> float:
        low, high = -reach - offset.min().item(), reach - offset.max().item()
        return rng.uniform(low, high) if low < high else (low + high) / 2

    return (within(track.x), within(track.y))


def _sample_pair(rng: random.Random, *, mix: SceneMix) -> tuple[tuple[Thing, Thing], str]:
    """Two differently coloured objects in a relation; both keep still or only scale or spin, so that the relation holds."""
    calm = ["stays still", "grows", "shrinks", "spins"]
    first = replace(_sample_thing(rng, mix=mix, motions=calm), size="small")
    second = replace(_sample_thing(rng, mix=mix, motions=calm), size="small")
    while second.colour == first.colour:
        second = replace(_sample_thing(rng, mix=mix, motions=calm), size="small")
    relation = rng.choice(RELATIONS)
    gap, drift = rng.uniform(0.22, 0.27), rng.uniform(-0.12, 0.12)
    if relation == "in front of":
        # The nearer object covers a part of the farther one: it comes last, and is named first.
        far = replace(second, start=(drift, rng.uniform(-0.12, 0.12)), size="big")
        near = replace(first, start=(far.start[0] + rng.choice([-0.12, 0.12]), far.start[1] + rng.uniform(-0.05, 0.05)))
        return (far, near), relation
    offset = {"left of": (-gap, drift), "right of": (gap, drift), "above": (drift, -gap), "below": (drift, gap)}[relation]
    return (replace(first, start=offset), replace(second, start=(-offset[0], -offset[1]))), relation
