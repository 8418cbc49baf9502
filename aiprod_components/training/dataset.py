"""step number -> seeds -> scenes -> clips: data that is rendered, never stored"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.miniature.render import positions_of, render_frames, render_stills
from aiprod_components.miniature.world import Scene, SceneMix, sample_scene

FRAME_RATE = 16.0
# Training draws its scenes below this seed, evaluation at and above it: no clip is in both.
FIRST_HELD_OUT_SEED = 1_000_000_000


def scenes_of(seeds: Sequence[int], *, mix: SceneMix) -> list[Scene]:
    return [sample_scene(random.Random(seed), mix=mix) for seed in seeds]


def step_rng(seed: int, step: int) -> random.Random:
    """The randomness of one training step."""
    return random.Random(seed * 1_000_003 + step)


def draw_seeds(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(FIRST_HELD_OUT_SEED) for _ in range(count)]


def clips_of(scenes: Sequence[Scene], *, num_frames: int, size: int, frame_rate: float = FRAME_RATE) -> UInt8[Tensor, "B T H W 3"]:
    """Square clips of the scenes, rendered."""
    return render_frames(scenes, num_frames=num_frames, height=size, width=size, frame_rate=frame_rate)


def stills_of(scenes: Sequence[Scene], *, frames: Sequence[int], size: int) -> UInt8[Tensor, "B K H W 3"]:
    """The frames of these numbers alone."""
    return render_stills(scenes, seconds=[frame / FRAME_RATE for frame in frames], height=size, width=size)


def crops_of(scenes: Sequence[Scene], *, num_frames: int, size: int, crop: int) -> UInt8[Tensor, "B T crop crop 3"]:
    """Windows of crop x crop pixels around each clip's last thing, held still: its world is mostly background."""
    clips = clips_of(scenes, num_frames=num_frames, size=size)
    centres = positions_of(scenes, num_frames=num_frames, height=size, width=size, frame_rate=FRAME_RATE).mean(dim=1)
    corners = (centres - crop / 2).round().clamp(0, size - crop).int().tolist()
    places = [corner[len(scene.things) - 1] for scene, corner in zip(scenes, corners, strict=True)]
    return torch.stack([clip[:, y : y + crop, x : x + crop] for clip, (x, y) in zip(clips, places, strict=True)])
