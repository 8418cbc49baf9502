"""scenes -> tracks -> clip: frames with exact masks, flow, depth and positions"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from aiprod_components.miniature.world import BACKGROUNDS, CAMERAS, COLOURS, MOTIONS, SIZES, Scene, Thing


# --- shapes
def _polygon(sides: int, turn: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Distance to a regular polygon with circumradius 1; `turn` rotates its edge normals."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        sector = 2 * math.pi / sides
        angle = torch.remainder(torch.atan2(y, x) - turn + sector / 2, sector) - sector / 2
        return torch.hypot(x, y) * torch.cos(angle) - math.cos(sector / 2)

    return distance


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Distance to a five-pointed star (points up): each half point is one straight edge from (1, 0) to the notch."""
    sector = 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(y, x) + math.pi / 2 + sector / 2, sector) - sector / 2
    r = torch.hypot(x, y)
    px, py = r * torch.cos(angle), r * torch.sin(angle).abs()
    notch_x, notch_y = 0.45 * math.cos(sector / 2), 0.45 * math.sin(sector / 2)
    edge_x, edge_y = notch_x - 1.0, notch_y
    return ((px - 1.0) * -edge_y + py * edge_x) / -math.hypot(edge_x, edge_y)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    long, short = 0.95, 0.32
    upright = torch.maximum(x.abs() - short, y.abs() - long)
    lying = torch.maximum(x.abs() - long, y.abs() - short)
    return torch.minimum(upright, lying)


SHAPE_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ball": lambda x, y: torch.hypot(x, y) - 0.95,
    "square": _polygon(4, 0.0),
    "triangle": _polygon(3, math.pi / 2),
    "star": _star,
    "ring": lambda x, y: (torch.hypot(x, y) - 0.72).abs() - 0.24,
    "cross": _cross,
}
PATTERN_PERIOD = 0.25


def _dots(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(_sawtooth(x), _sawtooth(y)) - 0.30 * PATTERN_PERIOD


def _sawtooth(x: Tensor) -> Tensor:
    """Distance to the nearest multiple of the pattern's period, signed."""
    return torch.remainder(x + PATTERN_PERIOD / 2, PATTERN_PERIOD) - PATTERN_PERIOD / 2


def _checkerboard(x: Tensor, y: Tensor) -> Tensor:
    half = PATTERN_PERIOD / 2
    across, down = _sawtooth(x).abs() - half / 2, _sawtooth(y).abs() - half / 2
    return torch.where((across > 0) == (down > 0), 1, -1) * torch.minimum(across.abs(), down.abs())


# pattern: signed distance in world lengths to the lighter tone
PATTERN_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": lambda x, y: torch.ones_like(x),
    "stripes": lambda x, y: _sawtooth((x + y) / math.sqrt(2)).abs() - PATTERN_PERIOD / 4,
    "dots": _dots,
    "checkerboard": _checkerboard,
}


# --- clips
@dataclass(frozen=True)
class Clip:
    """Rendered scenes and their ground truth.

    `flow[:, t]` is the motion from frame t to t + 1 in pixels (x, y); `depth` is 1 for the background and smaller when
    nearer; `masks` are what is visible of each object; `positions` (x, y) and `radii` are in pixels of the frame.
    """

    frames: UInt8[Tensor, "B T H W 3"]
    masks: Bool[Tensor, "B T O H W"]
    flow: Float[Tensor, "B T-1 2 H W"]
    depth: Float[Tensor, "B T H W"]
    positions: Float[Tensor, "B T O 2"]
    radii: Float[Tensor, "B T O"]


@dataclass(frozen=True)
class _Tracks:
    """Where everything is: object poses on the screen, and the camera's shift and zoom (world -> screen)."""

    x: Float[Tensor, "B O T"]
    y: Float[Tensor, "B O T"]
    radius: Float[Tensor, "B O T"]
    angle: Float[Tensor, "B O T"]
    shift: Float[Tensor, "B 2 T"]
    zoom: Float[Tensor, "B T"]


def _tracks(scenes: Sequence[Scene], *, t: Float[Tensor, " T"]) -> _Tracks:
    slots = max(len(scene.things) for scene in scenes)
    rates = torch.tensor([CAMERAS[scene.camera] for scene in scenes])
    shift, zoom = rates[:, :2, None] * t, torch.exp(rates[:, 2:3] * t)
    nowhere = torch.zeros(4, len(t))
    poses = torch.stack([torch.stack([_pose(s.things[o], t) if o < len(s.things) else nowhere for o in range(slots)]) for s in scenes])
    x, y, radius, angle = poses.unbind(dim=2)
    x = (x + shift[:, :1]) * zoom[:, None]
    y = (y + shift[:, 1:]) * zoom[:, None]
    return _Tracks(x, y, radius * zoom[:, None], angle, shift, zoom)


def _pose(thing: Thing, t: Float[Tensor, " T"]) -> Float[Tensor, "4 T"]:
    pose = MOTIONS[thing.motion](t, thing.speed, thing.phase)
    return torch.stack([thing.start[0] + pose.x, thing.start[1] + pose.y, SIZES[thing.size] * pose.scale, pose.angle])


def _screen(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Screen coordinates of the pixel centres, x and y of shape (height, width)."""
    y = (torch.arange(height) + 0.5) / height - 0.5
    x = (torch.arange(width) + 0.5 - width / 2) / height
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return grid_x, grid_y


def _paint_background(scenes: Sequence[Scene], tracks: _Tracks, *, height: int, width: int) -> Float[Tensor, "B T H W 3"]:
    x, y = _screen(height, width)
    layers = []
    for b, scene in enumerate(scenes):
        zoom = tracks.zoom[b, :, None, None]
        world_x, world_y = x / zoom - tracks.shift[b, 0, :, None, None], y / zoom - tracks.shift[b, 1, :, None, None]
        distance = PATTERN_DISTANCES[scene.pattern](world_x, world_y) * zoom
        dark = torch.tensor(BACKGROUNDS[scene.background], dtype=torch.float32)
        light = (dark * 1.2 + 22).clamp(max=255)
        layers.append(torch.lerp(dark, light, _coverage(distance, height)[..., None]))
    return torch.stack(layers)


def _coverage(distance: Tensor, height: int) -> Tensor:
    """How much of a pixel lies inside a shape (0 to 1) from its signed distance in frame heights: the edges' anti-aliasing."""
    return (0.5 - distance * height).clamp(0, 1)


def render(scenes: Sequence[Scene], *, num_frames: int, height: int, width: int, frame_rate: float) -> Clip:
    """Render a batch of scenes with their ground truth. Pure: the same scenes give the same clip."""
    tracks = _tracks(scenes, t=torch.arange(num_frames) / frame_rate)
    frames, masks, depth = _paint(scenes, tracks, height=height, width=width)
    return Clip(
        frames=frames,
        masks=masks,
        flow=_flow(tracks, masks, height=height, width=width),
        depth=depth,
        positions=_positions(tracks, height=height, width=width),
        radii=rearrange(tracks.radius * height, "b o t -> b t o"),
    )


def render_frames(scenes: Sequence[Scene], *, num_frames: int, height: int, width: int, frame_rate: float) -> UInt8[Tensor, "B T H W 3"]:
    """The frames alone: what training looks at."""
    tracks = _tracks(scenes, t=torch.arange(num_frames) / frame_rate)
    return _paint(scenes, tracks, height=height, width=width)[0]


def render_stills(scenes: Sequence[Scene], *, seconds: Sequence[float], height: int, width: int) -> UInt8[Tensor, "B T H W 3"]:
    """What each scene shows at these times, which are the same for all."""
    return _paint(scenes, _tracks(scenes, t=torch.tensor(seconds, dtype=torch.float32)), height=height, width=width)[0]


def positions_of(scenes: Sequence[Scene], *, num_frames: int, height: int, width: int, frame_rate: float) -> Float[Tensor, "B T O 2"]:
    """`Clip.positions` alone."""
    return _positions(_tracks(scenes, t=torch.arange(num_frames) / frame_rate), height=height, width=width)


def _positions(tracks: _Tracks, *, height: int, width: int) -> Float[Tensor, "B T O 2"]:
    return rearrange(torch.stack([tracks.x * height + width / 2, tracks.y * height + height / 2]), "xy b o t -> b t o xy")


def _paint(scenes: Sequence[Scene], tracks: _Tracks, *, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, visible masks (B T O H W) and depth, painted from the farthest thing to the nearest."""
    frames = _paint_background(scenes, tracks, height=height, width=width)
    batch, num_frames = frames.shape[:2]
    masks = torch.zeros(batch, num_frames, tracks.x.shape[1], height, width, dtype=torch.bool)
    depth = torch.ones(batch, num_frames, height, width)
    x, y = _screen(height, width)
    for b, scene in enumerate(scenes):
        for o, thing in enumerate(scene.things):
            distance = SHAPE_DISTANCES[thing.shape](*_to_object(tracks, b, o, x, y)) * tracks.radius[b, o, :, None, None]
            cover = _coverage(distance, height)
            frames[b] = torch.lerp(frames[b], torch.tensor(COLOURS[thing.colour], dtype=torch.float32), cover[..., None])
            inside = cover > 0.5
            masks[b] &= ~inside[:, None]
            masks[b, :, o] = inside
            depth[b] = torch.where(inside, 0.8 - 0.3 * o, depth[b])
    return frames.round().to(torch.uint8), masks, depth


def _to_object(tracks: _Tracks, b: int, o: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Screen coordinates -> the object's own (radius 1, unrotated), over time."""
    dx, dy = x - tracks.x[b, o, :, None, None], y - tracks.y[b, o, :, None, None]
    cos, sin = torch.cos(tracks.angle[b, o])[:, None, None], torch.sin(tracks.angle[b, o])[:, None, None]
    radius = tracks.radius[b, o, :, None, None]
    return (dx * cos + dy * sin) / radius, (dy * cos - dx * sin) / radius


def _flow(tracks: _Tracks, masks: Tensor, *, height: int, width: int) -> Float[Tensor, "B T-1 2 H W"]:
    """Exact motion of what each pixel shows: the camera's for the background, the object's rigid motion and scale on objects."""
    x, y = _screen(height, width)
    zoom, shift = tracks.zoom[:, :, None, None], tracks.shift[..., None, None]
    world_x, world_y = x / zoom - shift[:, 0], y / zoom - shift[:, 1]
    to_x = (world_x[:, :-1] + shift[:, 0, 1:]) * zoom[:, 1:]
    to_y = (world_y[:, :-1] + shift[:, 1, 1:]) * zoom[:, 1:]
    flow = torch.stack([to_x - x, to_y - y], dim=2)
    for o in range(tracks.x.shape[1]):
        for b in range(len(flow)):
            u, v = _to_object(tracks, b, o, x, y)
            u, v = u[:-1], v[:-1]
            angle, radius = tracks.angle[b, o, 1:, None, None], tracks.radius[b, o, 1:, None, None]
            moved_x = (u * torch.cos(angle) - v * torch.sin(angle)) * radius + tracks.x[b, o, 1:, None, None]
            moved_y = (u * torch.sin(angle) + v * torch.cos(angle)) * radius + tracks.y[b, o, 1:, None, None]
            flow[b] = torch.where(masks[b, :-1, o, None], torch.stack([moved_x - x, moved_y - y], dim=1), flow[b])
    return flow * height
