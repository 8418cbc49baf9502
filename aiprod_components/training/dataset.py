"""step number -> seeds -> scenes -> clips: data that is rendered, never stored"""

import random
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.miniature.render import render_frames
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


def clips_of(scenes: Sequence[Scene], *, num_frames: int, size: int) -> UInt8[Tensor, "B T H W 3"]:
    return render_frames(scenes, num_frames=num_frames, height=size, width=size, frame_rate=FRAME_RATE)


def to_unit(frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 3 T H W"]:
    """Bytes -> [0, 1], channels first but last in memory, which convolutions like best."""
    return rearrange(frames, "b t h w c -> b c t h w").float().div_(255).contiguous(memory_format=torch.channels_last_3d)
