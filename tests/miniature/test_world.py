"""random scenes -> clips -> what the renderer promises of them"""

import random

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from aiprod_components.miniature.render import Clip, render, render_frames
from aiprod_components.miniature.world import HELD_OUT_PAIRS, SHAPES, Scene, SceneMix, Thing, sample_scene

torch.set_num_threads(1)
EVERYTHING = SceneMix(two_objects=0.5, patterns=0.7, cameras=0.5, pairs="all")
SINGLE = SceneMix(pairs="all")


def scenes(count: int, *, mix: SceneMix, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, mix=mix) for _ in range(count)]


def clip_of(some: list[Scene], *, size: int = 64, num_frames: int = 33) -> Clip:
    return render(some, num_frames=num_frames, height=size, width=size, frame_rate=16.0)


def look_up(images: Tensor, at: Tensor) -> Tensor:
    """`images` (N C H W) at the pixel coordinates `at` (N 2 H W)."""
    height, width = images.shape[-2:]
    grid = rearrange(at, "n c h w -> n h w c") * torch.tensor([2 / width, 2 / height]) - 1
    return F.grid_sample(images, grid, align_corners=False)


def core(masks: Tensor, by: int) -> Tensor:
    """Masks (N H W) without their rims."""
    return 1 - F.max_pool2d(1 - masks.float()[:, None], 2 * by + 1, stride=1, padding=by)[:, 0] > 0.5


def test_flow_finds_every_pixel_again_in_the_next_frame() -> None:
    clip = clip_of(scenes(12, mix=EVERYTHING), size=128, num_frames=17)
    height, width = clip.frames.shape[2:4]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for b in range(len(clip.frames)):
        now, following = (rearrange(clip.frames[b, part].float(), "t h w c -> t c h w") for part in (slice(0, -1), slice(1, None)))
        target = torch.stack([x, y]) + clip.flow[b]
        inside = ((target > 1) & (target < width - 1)).all(dim=1)
        error = (look_up(following, target) - now).abs().mean(dim=1)
        for o in range(clip.masks.shape[2]):
            mask, covered = clip.masks[b, :-1, o], torch.zeros_like(inside)
            for nearer in range(o + 1, clip.masks.shape[2]):  # what a nearer thing is about to cover is not found again
                covered |= look_up(clip.masks[b, 1:, nearer, None].float(), target)[:, 0] > 0
            sure = core(mask, 2) & inside & ~covered
            if sure.any():
                assert error[sure].max() < 1.0
        behind = core(~clip.masks[b, :-1].any(dim=1), 3) & core(~clip.masks[b, 1:].any(dim=1), 3) & inside
        assert error[behind].mean() < 1.0


def test_flow_turns_with_a_spinning_thing() -> None:
    thing = Thing("square", "red", "big", "spins", "quickly", (0.0, 0.0))
    clip = clip_of([Scene((thing,), "black")], num_frames=2)
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    turn = torch.tensor(2.2 / 16)
    expected = torch.stack([x * turn.cos() - y * turn.sin() - x, x * turn.sin() + y * turn.cos() - y])
    mask = clip.masks[0, 0, 0]
    assert torch.allclose(clip.flow[0, 0][:, mask], expected[:, mask], atol=1e-3)


@pytest.mark.parametrize("camera", ["static", "dolly in", "jib up"])
def test_flow_away_from_things_is_the_cameras(camera: str) -> None:
    thing = Thing("ball", "red", "small", "stays still", "slowly", (-0.3, -0.3))
    flow = clip_of([Scene((thing,), "black", "dots", camera)], num_frames=2).flow[0, 0]
    corner = flow[:, -1, -1]
    expected = {"static": (0.0, 0.0), "dolly in": (0.44, 0.44), "jib up": (0.0, 0.56)}[camera]
    assert torch.allclose(corner, torch.tensor(expected), atol=0.02)


def test_positions_are_the_centres_of_masks_and_radii_their_sizes() -> None:
    clip = clip_of(scenes(24, mix=SINGLE), size=128, num_frames=17)
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    masks = clip.masks[:, :, 0].float()
    area = reduce(masks, "b t h w -> b t", "sum")
    centres = torch.stack([reduce(masks * axis, "b t h w -> b t", "sum") / area for axis in (x, y)], dim=-1)
    assert (centres - clip.positions[:, :, 0]).norm(dim=-1).max() < 0.6
    reach = (masks * torch.hypot(*(torch.stack([x, y]) - clip.positions[:, :, 0, :, None, None]).unbind(dim=2))).amax(dim=(2, 3))
    assert ((reach / clip.radii[:, :, 0] > 0.75) & (reach / clip.radii[:, :, 0] < 1.05)).all()


def test_masks_do_not_overlap_and_nearer_things_have_less_depth() -> None:
    clip = clip_of(scenes(8, mix=SceneMix(two_objects=1.0)), num_frames=9)
    assert not (clip.masks[:, :, 0] & clip.masks[:, :, 1]).any()
    background, far, near = (clip.depth[mask] for mask in (~clip.masks.any(dim=2), clip.masks[:, :, 0], clip.masks[:, :, 1]))
    assert background.eq(1).all() and far.max() < 1 and near.max() < far.min()


def test_the_same_scene_gives_the_same_clip_alone_or_in_a_batch() -> None:
    some = scenes(4, mix=EVERYTHING)
    batch, again = clip_of(some, num_frames=9), clip_of(some, num_frames=9)
    assert torch.equal(batch.frames, again.frames) and torch.equal(batch.flow, again.flow)
    for index, scene in enumerate(some):
        assert torch.equal(clip_of([scene], num_frames=9).frames[0], batch.frames[index])
    assert torch.equal(render_frames(some, num_frames=9, height=64, width=64, frame_rate=16.0), batch.frames)


def test_a_clip_at_twice_the_size_shows_the_same() -> None:
    some = scenes(8, mix=EVERYTHING)
    small, large = clip_of(some, num_frames=9), clip_of(some, size=128, num_frames=9)
    shrunk = reduce(large.frames.float(), "b t (h 2) (w 2) c -> b t h w c", "mean")
    difference = (shrunk - small.frames.float()).abs()
    assert difference.mean() < 1.0
    assert (difference.amax(dim=-1) > 40).float().mean() < 0.005  # only tips, thinner than a pixel, may differ much
    assert torch.allclose(large.positions, small.positions * 2, atol=1e-3)


def test_things_under_a_static_camera_stay_in_the_frame() -> None:
    clip = clip_of(scenes(60, mix=SINGLE, seed=5), num_frames=33)
    margin = torch.minimum(clip.positions, 64 - clip.positions).amin(dim=-1) - clip.radii
    assert margin.min() > -0.1


@pytest.mark.parametrize(("pairs", "held_out"), [("seen", {False}), ("unseen", {True}), ("all", {True, False})])
def test_held_out_pairs_are_sampled_only_when_asked_for(pairs: str, held_out: set[bool]) -> None:
    mix = SceneMix(two_objects=0.3, pairs=pairs)
    things = [thing for scene in scenes(1500, mix=mix) for thing in scene.things]
    assert {(thing.shape, thing.colour) in HELD_OUT_PAIRS for thing in things} == held_out
    assert {thing.shape for thing in things} == set(SHAPES)


def test_a_mix_says_how_often_scenes_are_rich() -> None:
    some = scenes(1000, mix=SceneMix(two_objects=0.3, patterns=0.2, cameras=0.1))
    shares = {
        "two": sum(len(scene.things) == 2 for scene in some),
        "patterned": sum(scene.pattern != "plain" for scene in some),
        "moving": sum(scene.camera != "static" for scene in some),
    }
    assert shares == pytest.approx({"two": 300, "patterned": 200, "moving": 100}, abs=45)
