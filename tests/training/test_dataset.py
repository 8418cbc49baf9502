"""scenes -> crops: a thing is in its window, and the window is a part of the clip"""

import random

import torch

from aiprod_components.miniature.world import SceneMix, sample_scene
from aiprod_components.training.dataset import clips_of, crops_of

torch.set_num_threads(1)
SCENES = [sample_scene(random.Random(seed), mix=SceneMix(two_objects=0.3, motions=("moves left", "grows"))) for seed in range(12)]


def test_a_crop_holds_the_thing_and_what_is_around_it() -> None:
    crops = crops_of(SCENES, num_frames=3, size=128, crop=64)
    background = crops[:, :, :1, :1]
    shown = ((crops.int() - background.int()).abs().amax(dim=-1) > 20).float().mean(dim=(2, 3))
    assert crops.shape == (12, 3, 64, 64, 3)
    assert ((shown > 0.02) & (shown < 0.8)).all()


def test_a_crop_as_large_as_the_clip_is_the_clip() -> None:
    assert torch.equal(crops_of(SCENES, num_frames=3, size=64, crop=64), clips_of(SCENES, num_frames=3, size=64))


def test_a_mix_names_the_motions_of_single_things() -> None:
    mix = SceneMix(motions=("moves left", "grows"))
    scenes = [sample_scene(random.Random(seed), mix=mix) for seed in range(50)]
    assert {thing.motion for scene in scenes for thing in scene.things} == {"moves left", "grows"}
