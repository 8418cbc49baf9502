"""step number -> seeds -> scenes -> clips: data that is rendered, never stored"""

import random
from collections.abc import Sequence

from jaxtyping import UInt8
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
