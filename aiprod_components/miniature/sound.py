"""scene -> sound events -> stereo waveform

A click at each bounce, a tone whose pitch follows the height of a thing that moves, and a quiet ambience that tells the background's
pattern. Sounds come from where things are in the world, whatever the camera does.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.miniature.world import BOUNCE_PERIOD, HEADINGS, MOTIONS, Scene, Thing

CLICK_PITCH, CLICK_DECAY, CLICK_LEVEL = 2400.0, 0.008, 0.6  # Hz, seconds, peak
TONE_PITCH, TONE_OCTAVES, TONE_LEVEL = 220.0, 2.0, 0.15  # Hz at the frame's bottom, octaves up to its top, peak
FADE = 0.02  # seconds; a tone that began at once would click
AMBIENCE_LEVEL = 0.03
AMBIENCES: dict[str, tuple[float, float]] = {  # pattern: pitch and how often a second it swells, in Hz
    "plain": (70.0, 0.0),
    "stripes": (110.0, 4.0),
    "dots": (150.0, 8.0),
    "checkerboard": (190.0, 2.0),
}


@dataclass(frozen=True)
class SoundEvent:
    """Something that is heard at one moment, in seconds from the clip's start, and how far right it is (-1 to 1)."""

    kind: str
    time: float
    side: float = 0.0


def sound_events(scene: Scene, *, num_frames: int, frame_rate: float) -> tuple[SoundEvent, ...]:
    """The bounces within a clip, in order of time."""
    duration = num_frames / frame_rate
    events = [event for thing in scene.things if thing.motion == "bounces" for event in _bounces(thing, duration=duration)]
    return tuple(sorted(events, key=lambda event: event.time))


def _bounces(thing: Thing, *, duration: float) -> list[SoundEvent]:
    """A thing touches the floor at period * (n + 1/2 - phase), see `world._bounce`."""
    period = BOUNCE_PERIOD[thing.speed]
    first = math.ceil(thing.phase - 0.5)
    times = (period * (first + n + 0.5 - thing.phase) for n in range(math.ceil(duration / period) + 1))
    return [SoundEvent("bounce", time, 2 * thing.start[0]) for time in times if time < duration]


def render_sound(scene: Scene, *, num_samples: int, sample_rate: int) -> Float[Tensor, "2 S"]:
    """What a scene sounds like, within -1 and 1. Pure: the same scene gives the same waveform."""
    t = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    sound = _ambience(scene.pattern, t).expand(2, -1)
    for event in sound_events(scene, num_frames=num_samples, frame_rate=sample_rate):
        sound = sound + _pan(_click(t - event.time), torch.tensor(event.side))
    for thing in scene.things:
        if thing.motion in HEADINGS:
            pose = MOTIONS[thing.motion](t, thing.speed, thing.phase)
            sound = sound + _pan(_tone(thing.start[1] + pose.y, t), 2 * (thing.start[0] + pose.x))
    return sound.clamp(-1, 1).float()


def _click(since: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    ringing = torch.exp(-since.clamp(min=0) / CLICK_DECAY) * torch.cos(2 * math.pi * CLICK_PITCH * since)
    return CLICK_LEVEL * ringing * (since >= 0)


def _tone(y: Float[Tensor, " S"], t: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    """A sine whose pitch rises with height; y is -1/2 at the frame's top and 1/2 at its bottom."""
    pitch = TONE_PITCH * 2 ** (TONE_OCTAVES * (0.5 - y))
    step = t[1] - t[0] if len(t) > 1 else 0.0
    return TONE_LEVEL * torch.sin(2 * math.pi * torch.cumsum(pitch, dim=0) * step) * (t / FADE).clamp(max=1)


def _ambience(pattern: str, t: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    pitch, swell = AMBIENCES[pattern]
    chord = torch.sin(2 * math.pi * pitch * t) + 0.5 * torch.sin(3 * math.pi * pitch * t)
    return AMBIENCE_LEVEL * chord * (0.5 + 0.5 * torch.cos(2 * math.pi * swell * t)) * (t / FADE).clamp(max=1)


def _pan(sound: Float[Tensor, " S"], side: Tensor) -> Float[Tensor, "2 S"]:
    """To the left (side -1) or right (side 1), at equal power."""
    turn = (side.clamp(-1, 1) + 1) * math.pi / 4
    return torch.stack([sound * torch.cos(turn), sound * torch.sin(turn)])
