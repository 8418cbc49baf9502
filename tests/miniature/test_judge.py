"""rendered clips, clean, degraded and spoiled -> readings -> what the judge sees and what it refuses"""

import io
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image
from scipy import ndimage
from torch import Tensor

from aiprod_components.miniature.judge import find_onsets, read_clip, score
from aiprod_components.miniature.render import render, render_frames
from aiprod_components.miniature.sound import render_sound, sound_events
from aiprod_components.miniature.world import BACKGROUNDS, BOUNCE_HEIGHT, COLOURS, MOTIONS, SHAPES, Scene, SceneMix, Thing, sample_scene

torch.set_num_threads(1)
FRAME_RATE = 16.0
Clip = UInt8[Tensor, "T H W 3"]
SINGLE, PATTERNED, MOVING = SceneMix(pairs="all"), SceneMix(patterns=1.0, pairs="all"), SceneMix(patterns=1.0, cameras=1.0, pairs="all")
PAIR, EVERYTHING = SceneMix(two_objects=1.0, pairs="all"), SceneMix(two_objects=0.5, patterns=0.6, cameras=0.3, pairs="all")
STAR = Thing("star", "yellow", "big", "moves right", "slowly", (-0.2, 0.1))
SCENE = Scene((STAR,), "navy")


def scenes(count: int, *, mix: SceneMix, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, mix=mix) for _ in range(count)]


def film(scene: Scene, *, size: int = 128, num_frames: int = 33) -> Clip:
    return render_frames([scene], num_frames=num_frames, height=size, width=size, frame_rate=FRAME_RATE)[0]


def stated(scene: Scene) -> dict[str, str]:
    """Everything a caption could state of a scene."""
    first, second = (scene.things[-1], scene.things[0]) if scene.relation == "in front of" else (scene.things[0], scene.things[-1])
    facts = {slot: getattr(first, slot) for slot in ("shape", "colour", "size", "motion", "speed")}
    facts |= {slot: getattr(scene, slot) for slot in ("background", "pattern", "camera")}
    if scene.relation:
        facts |= {"relation": scene.relation} | {f"{slot}_2": getattr(second, slot) for slot in ("shape", "colour", "size", "motion")}
    return facts


def unlike(scene: Scene, clip: Clip) -> list[str]:
    """The attributes that the judge does not see in a clip of the scene."""
    reading = read_clip(clip, frame_rate=FRAME_RATE)
    return [reading.refused or slot for slot, right in score(reading, stated(scene)).items() if not right]


def degrade(clip: Clip, *, seed: int, jpeg: bool) -> Clip:
    """What a video autoencoder does: soft edges, noise, shifted colours, blocks."""
    rng = np.random.default_rng(seed)
    pixels = ndimage.gaussian_filter(clip.numpy().astype(np.float32), (0, 0.7, 0.7, 0))
    pixels = pixels + rng.uniform(-6, 6, (1, 1, 1, 3)) + rng.uniform(-4, 4, pixels.shape)
    pixels = pixels.round().clip(0, 255).astype(np.uint8)
    return torch.from_numpy(np.stack([squeeze(frame) for frame in pixels]) if jpeg else pixels)


def squeeze(frame: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "jpeg", quality=75)
    return np.asarray(Image.open(file))


# --- what is there is seen
@pytest.mark.parametrize(
    ("mix", "count", "size"),
    [(SINGLE, 40, 128), (SINGLE, 20, 64), (PATTERNED, 10, 128), (MOVING, 10, 128), (PAIR, 10, 128), (EVERYTHING, 10, 64)],
)
def test_the_judge_sees_what_was_rendered(mix: SceneMix, count: int, size: int) -> None:
    assert [fault for scene in scenes(count, mix=mix, seed=size) for fault in unlike(scene, film(scene, size=size))] == []


@pytest.mark.parametrize("jpeg", [False, True])
def test_the_judge_sees_through_what_an_autoencoder_does(jpeg: bool) -> None:
    clips = [(scene, degrade(film(scene), seed=index, jpeg=jpeg)) for index, scene in enumerate(scenes(12, mix=EVERYTHING, seed=1))]
    assert [fault for scene, clip in clips for fault in unlike(scene, clip)] == []


def test_seventeen_frames_are_enough() -> None:
    assert [fault for scene in scenes(12, mix=SINGLE, seed=2) for fault in unlike(scene, film(scene, num_frames=17))] == []


def test_the_judge_tracks_centres_in_pixels() -> None:
    scene = Scene((replace(STAR, motion="orbits", start=(0.0, 0.0)),), "navy", "dots", "dolly out")
    clip = render([scene], num_frames=33, height=128, width=128, frame_rate=FRAME_RATE)
    reading = read_clip(clip.frames[0], frame_rate=FRAME_RATE)
    assert (reading.things[0].track - clip.positions[0, :, 0]).norm(dim=-1).max() < 1.0


# --- what is not there is not seen
def test_a_wrong_attribute_is_scored_wrong_and_the_others_right() -> None:
    others = {"shape": SHAPES, "colour": COLOURS, "size": ("small", "big"), "motion": MOTIONS, "speed": ("slowly", "quickly")}
    others |= {"background": BACKGROUNDS, "pattern": ("stripes", "dots")}
    rng = random.Random(3)
    for scene in scenes(10, mix=SINGLE, seed=3):
        reading, truth = read_clip(film(scene), frame_rate=FRAME_RATE), stated(scene)
        for slot, values in others.items():
            if slot == "speed" and scene.things[0].motion == "stays still":
                continue
            wrong = truth | {slot: rng.choice([value for value in values if value != truth[slot]])}
            assert {name for name, right in score(reading, wrong).items() if not right} in ({slot}, {slot, "speed"})


def test_the_objects_of_a_relation_are_not_interchangeable() -> None:
    left, right = (
        replace(STAR, motion="spins", size="small", start=(-0.25, 0.0)),
        Thing("ball", "red", "small", "grows", "slowly", (0.25, 0.0)),
    )
    scene = Scene((left, right), "gray", relation="left of")
    reading = read_clip(film(scene), frame_rate=FRAME_RATE)
    assert all(score(reading, stated(scene)).values())
    assert all(score(reading, stated(Scene((right, left), "gray", relation="right of"))).values())
    assert not score(reading, stated(Scene((right, left), "gray", relation="left of")))["relation"]
    assert not score(reading, stated(replace(scene, relation="above")))["relation"]


def test_an_object_that_nobody_asked_for_is_a_fault() -> None:
    pair = scenes(1, mix=PAIR)[0]
    result = score(read_clip(film(pair), frame_rate=FRAME_RATE), stated(replace(pair, things=pair.things[:1], relation=None)))
    assert not result["shape"] and not result["colour"] and result["background"]


def test_a_camera_over_a_plain_background_is_not_judged_but_believed() -> None:
    still = replace(SCENE, things=(replace(STAR, motion="stays still"),), camera="dolly left")
    reading = read_clip(film(still), frame_rate=FRAME_RATE)
    assert (reading.camera, reading.things[0].motion) == ("static", "moves right")
    result = score(reading, stated(still))
    assert "camera" not in result and result["motion"]


def test_the_judge_sees_which_way_the_camera_goes_over_stripes() -> None:
    for camera in ("dolly left", "jib up", "dolly right", "jib down"):
        scene = Scene((replace(STAR, start=(0.0, 0.0), motion="spins"),), "teal", "stripes", camera)
        assert read_clip(film(scene), frame_rate=FRAME_RATE).camera == camera


# --- spoiled clips are refused
def noise(_scene: Scene, rng: np.random.Generator) -> Clip:
    return torch.from_numpy(rng.integers(0, 256, (33, 128, 128, 3)).astype(np.uint8))


def blurred(scene: Scene, rng: np.random.Generator) -> Clip:
    return torch.from_numpy(ndimage.gaussian_filter(film(scene).numpy().astype(np.float32), (0, 4, 4, 0)).astype(np.uint8))


def empty(scene: Scene) -> Clip:
    nowhere = replace(scene.things[0], motion="stays still", start=(9.0, 9.0))
    return film(replace(scene, things=(nowhere,), relation=None))


def mixed(one: Clip, other: Clip) -> Clip:
    return ((one.float() + other.float()) / 2).round().to(torch.uint8)


def ghosts(scene: Scene, rng: np.random.Generator) -> Clip:
    other = scenes(1, mix=EVERYTHING, seed=int(rng.integers(1000, 2000)))[0]
    return mixed(film(scene), film(replace(other, background=scene.background, pattern=scene.pattern, camera=scene.camera)))


def half_there(scene: Scene, rng: np.random.Generator) -> Clip:
    return mixed(film(scene), empty(scene))


def spliced(clip: Clip, other: Clip, where: list[int]) -> Clip:
    clip = clip.clone()
    clip[where] = other[where]
    return clip


def flickering(scene: Scene, rng: np.random.Generator) -> Clip:
    return spliced(film(scene), empty(scene), rng.choice(16, 3, replace=False).tolist())  # early, while everything is in the frame


def with_first(scene: Scene, **changes: str) -> Scene:
    return replace(scene, things=(replace(scene.things[0], **changes), *scene.things[1:]))


def changing_colour(scene: Scene, rng: np.random.Generator) -> Clip:
    used = {thing.colour for thing in scene.things}
    colour = str(rng.choice([colour for colour in COLOURS if colour not in used]))
    return spliced(film(scene), film(with_first(scene, colour=colour)), list(range(16, 33)))


def changing_shape(scene: Scene, rng: np.random.Generator) -> Clip:
    shape = str(rng.choice([shape for shape in SHAPES if shape != scene.things[0].shape]))
    return spliced(film(scene), film(with_first(scene, shape=shape)), list(range(14, 33)))


def changing_background(scene: Scene, rng: np.random.Generator) -> Clip:
    background = str(rng.choice([name for name in BACKGROUNDS if name != scene.background]))
    return spliced(film(scene), film(replace(scene, background=background)), list(range(16, 33)))


def jumping(scene: Scene, rng: np.random.Generator) -> Clip:
    shifts = rng.integers(-16, 17, (33, 2)).tolist()
    return torch.stack([frame.roll((dy, dx), (0, 1)) for frame, (dy, dx) in zip(film(scene), shifts, strict=True)])


@pytest.mark.parametrize("mix", [SINGLE, PATTERNED], ids=["plain", "patterned"])
@pytest.mark.parametrize(
    "spoil",
    [noise, blurred, ghosts, half_there, flickering, changing_colour, changing_shape, changing_background, jumping],
    ids=lambda spoil: spoil.__name__,
)
def test_a_spoiled_clip_is_refused(spoil: Callable[[Scene, np.random.Generator], Clip], mix: SceneMix) -> None:
    rng = np.random.default_rng(4)
    readings = [read_clip(spoil(scene, rng), frame_rate=FRAME_RATE) for scene in scenes(3, mix=mix, seed=4)]
    assert [reading for reading in readings if not reading.refused] == []


def test_a_refused_clip_shows_nothing_that_was_asked_for() -> None:
    reading = read_clip(half_there(SCENE, np.random.default_rng(0)), frame_rate=FRAME_RATE)
    assert reading.refused and not any(score(reading, stated(SCENE)).values())


# --- sound
def test_a_click_sounds_when_a_thing_touches_the_floor() -> None:
    thing = Thing("ball", "red", "small", "bounces", "quickly", (0.1, 0.3), phase=0.7)
    events = sound_events(Scene((thing,), "black"), num_frames=33, frame_rate=FRAME_RATE)
    heights = MOTIONS["bounces"](torch.tensor([event.time for event in events]), thing.speed, thing.phase).y
    assert len(events) == 2 and heights.abs().max() < 1e-4 * BOUNCE_HEIGHT
    assert all(0 <= event.time < 33 / FRAME_RATE and event.kind == "bounce" for event in events)


@pytest.mark.parametrize("sample_rate", [16000, 24000])
def test_onsets_are_heard_within_one_frame_and_nothing_else_is(sample_rate: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for scene in scenes(60, mix=PATTERNED, seed=6):
        sound = render_sound(scene, num_samples=2 * sample_rate, sample_rate=sample_rate)
        heard = find_onsets(sound + 0.005 * torch.randn(sound.shape, generator=generator), sample_rate=sample_rate)
        expected = [event.time for event in sound_events(scene, num_frames=32, frame_rate=FRAME_RATE)]
        assert len(heard) == len(expected)
        assert all(abs(one - other) < 1 / FRAME_RATE for one, other in zip(heard, expected, strict=True))


def test_the_tone_rises_with_the_thing() -> None:
    scene = Scene((replace(STAR, motion="moves up", speed="quickly", start=(0.0, 0.3)),), "black")
    sound = render_sound(scene, num_samples=32000, sample_rate=16000).mean(dim=0)
    first, last = (16000 / 4000 * torch.fft.rfft(part).abs().argmax().item() for part in (sound[:4000], sound[-4000:]))
    assert math.log2(last / first) == pytest.approx(2 * 0.32 * 1.75, abs=0.1)


def test_the_same_scene_sounds_the_same_and_every_pattern_differs() -> None:
    sounds = [render_sound(replace(SCENE, pattern=name), num_samples=8000, sample_rate=16000) for name in ("plain", "dots", "dots")]
    assert torch.equal(sounds[1], sounds[2]) and not torch.equal(sounds[0], sounds[1])
    assert all(sound.shape == (2, 8000) and sound.abs().max() <= 1 for sound in sounds)
