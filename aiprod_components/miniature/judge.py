"""clip -> backdrop and tracks -> motions and camera that explain them -> reading -> score; waveform -> onsets

A reader made of plain image processing, without learned weights. It names what a clip of the procedural world shows and refuses
clips that are not clean: a refused clip shows nothing that was asked for.

What cannot be seen is not judged. On a plain background a moving camera looks like moving things: `camera` is "static" there unless
no motion under a static camera explains the things ("spins" that also drifts), and `score` leaves the stated camera out but reads
the motions as they would be under it ("stays still" while the camera moves left looks like "moves right").
Diagonal stripes move alike under "jib up" and "dolly left" ("jib down" and "dolly right"): the things' motion decides.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.miniature.backdrop import Backdrop, camera_path, read_backdrop
from aiprod_components.miniature.covers import find_covers, pool
from aiprod_components.miniature.tracker import BLURS, SYMMETRY, Track, draw, shape_area, track_things
from aiprod_components.miniature.world import MOTIONS, SIZES, SPEEDS

# What still counts as clean. Lengths are frame heights, colours are levels.
OFF_COLOUR = 36.0  # an object half blended into its background is off by at least 47
OFF_PATH, OFF_SCALE, OFF_ANGLE = 0.06, 0.15, 0.9  # angles as phases of the shape's symmetry: noise has 1.4
WORST_BLUR = 1.1  # standard deviation in pixels at 64 rows: 2.2 pixels at 128
WORST_MISFIT, WORST_HIDDEN_MISFIT = 0.15, 0.25  # clearly wrong pixels per covered pixel
MOST_DOUBT = 0.2
UNEXPLAINED, MOST_UNEXPLAINED = 35.0, 0.15  # levels off every mixture, and such pixels per covered pixel
_PHASES = 40


@dataclass(frozen=True)
class ThingReading:
    """One object of a clip; `track` holds its centre (x, y) in pixels as `Clip.positions` does, nan where it is lost."""

    shape: str
    colour: str
    size: str
    motion: str
    speed: str | None
    track: Float[Tensor, "T 2"]


@dataclass(frozen=True)
class Reading:
    """What a clip shows. `things[0]` is `relation` `things[1]`, except that "in front of" lists the farther thing first, as scenes do.

    `refused` says why the clip is not a clean clip of this world (None when it is). `under` holds the things as they read under each
    camera that a plain background leaves open.
    """

    things: tuple[ThingReading, ...]
    background: str
    pattern: str
    camera: str
    relation: str | None
    refused: str | None
    under: dict[str, tuple[ThingReading, ...]] = field(default_factory=dict)


# --- tracks -> motions
@dataclass(frozen=True)
class _Guess:
    """A motion that could explain a track, with its offsets (x, y, log scale, angle) over time."""

    motion: str
    speed: str
    offsets: Float[Tensor, "T 4"]


@dataclass(frozen=True)
class _Fit:
    """The best guess for a track under one camera, and by how much it misses path, scale and angle (root mean squares)."""

    guess: _Guess
    origin: Float[Tensor, "4"]
    path: float
    scale: float
    angle: float
    cost: float


@cache
def _guesses(num_frames: int, frame_rate: float) -> tuple[tuple[_Guess, ...], Float[Tensor, "G T 4"]]:
    t = torch.arange(num_frames) / frame_rate
    guesses = []
    for motion, move in MOTIONS.items():
        for speed in SPEEDS[:1] if motion == "stays still" else SPEEDS:
            for phase in torch.arange(_PHASES) / _PHASES if motion in ("bounces", "orbits") else (0.0,):
                pose = move(t, speed, float(phase))
                guesses.append(_Guess(motion, speed, torch.stack([pose.x, pose.y, pose.scale.log(), pose.angle], dim=-1)))
    return tuple(guesses), torch.stack([guess.offsets for guess in guesses])


def _fit(track: Track, *, shift: Tensor, zoom: Tensor, frame_rate: float) -> _Fit:
    """The motion that explains a track best once the camera's motion is taken out."""
    guesses, offsets = _guesses(len(track.poses), frame_rate)
    seen = ~track.poses[:, 0].isnan()
    x, y, radius, angle = track.poses[seen].unbind(dim=1)
    zoom, shift = zoom[seen], shift[:, seen]
    world = torch.stack([x / zoom - shift[0], y / zoom - shift[1], (radius / zoom).log(), angle], dim=-1)
    rest = world - offsets[:, seen]
    weight = (track.share[seen].square() / track.share[seen].square().sum())[:, None]  # poses of half-seen things are guesses
    origin = (rest * weight).sum(dim=1)
    miss = ((rest - origin[:, None]).square() * weight).sum(dim=1)
    symmetry = SYMMETRY[track.shape]
    phase = (rest[..., 3] * symmetry).unsqueeze(-1)  # angles count modulo the shape's symmetry
    mean = torch.cat([phase.cos(), phase.sin()], dim=-1)
    mean = (mean * weight).sum(dim=1)
    spread = (2 * (1 - mean.norm(dim=-1))).clamp(min=0)
    origin = torch.cat([origin[:, :3], torch.atan2(mean[:, 1], mean[:, 0])[:, None] / max(symmetry, 1)], dim=1)
    cost = (miss[:, 0] + miss[:, 1]) / 0.01**2 + miss[:, 2] / 0.04**2 + spread / 0.4**2
    if symmetry == 0:
        cost = cost + torch.tensor([math.inf if guess.motion == "spins" else 0.0 for guess in guesses])
    best = int(cost.argmin())
    path, scale, angle = (miss[best, 0] + miss[best, 1]).sqrt(), miss[best, 2].sqrt(), spread[best].sqrt()
    return _Fit(guesses[best], origin[best], path.item(), scale.item(), angle.item(), cost[best].item())


@dataclass(frozen=True)
class _Explanation:
    """A camera and, for each thing, the motion that fits best under it."""

    camera: str
    shift: Float[Tensor, "2 T"]
    zoom: Float[Tensor, " T"]
    fits: tuple[_Fit, ...]

    @property
    def cost(self) -> float:
        return sum(fit.cost for fit in self.fits)


def _explain(tracks: list[Track], backdrop: Backdrop, *, t: Tensor, frame_rate: float) -> list[_Explanation]:
    """How each camera that the background leaves open explains the tracks; the best first, a static camera if it is as good."""
    options = []
    for camera, pace in backdrop.cameras:
        shift, zoom = camera_path(camera, t, pace=pace)
        fits = tuple(_fit(track, shift=shift, zoom=zoom, frame_rate=frame_rate) for track in tracks)
        options.append(_Explanation(camera, shift, zoom, fits))
    least = min(option.cost for option in options)

    def rank(option: _Explanation) -> float:
        good = option.camera == "static" and option.cost < max(4 * least, 2.0 * len(tracks))
        return -1.0 if good else option.cost

    return sorted(options, key=rank)


# --- faults
def _missing(track: Track, fit: _Fit, explanation: _Explanation) -> int:
    """In how many frames the thing should be seen and is not, or is nothing like itself."""
    x, y, log_radius, angle = (fit.origin + fit.guess.offsets).unbind(dim=1)
    shift, zoom = explanation.shift, explanation.zoom
    poses = torch.stack([(x + shift[0]) * zoom, (y + shift[1]) * zoom, log_radius.exp() * zoom, angle], dim=-1)
    height, width = track.hidden.shape[1:]
    expected = (draw(track.shape, poses, height=height, width=width, blur=BLURS[0]) * ~track.hidden).sum((1, 2))
    enough = torch.where(track.hidden.any(dim=2).any(dim=1), 30.0, 16.0)  # pixels that cannot be lost in a rim
    complete = shape_area(track.shape) * (poses[:, 2] * height).square()
    lost = track.poses[:, 0].isnan() & (expected > 0.6 * complete)
    return int(((expected > enough) & ((track.mass < 0.4 * expected) | lost)).sum())


def _track_fault(track: Track) -> str | None:
    """Why a thing is not drawn as this world draws things."""
    if track.colour_error > OFF_COLOUR:
        return f"an object {track.colour_error:.0f} colour levels away from {track.colour}"
    if track.blur > WORST_BLUR:
        return f"a blurred {track.shape}"
    if track.doubt > MOST_DOUBT:
        return f"a {track.shape} that is another shape in {track.doubt:.0%} of the frames"
    hidden = track.hidden.any(dim=2).any(dim=1)
    plainly, partly = track.misfit[(track.share > 0.4) & ~hidden & (track.mass > 12)], track.misfit[(track.share > 0.5) & hidden]
    if len(plainly) + len(partly) < 4:
        return "an object that is hardly ever seen"
    if (len(plainly) and plainly.quantile(0.9) > WORST_MISFIT) or (len(partly) and partly.quantile(0.7) > WORST_HIDDEN_MISFIT):
        return f"a {track.shape} with a wrong outline"
    return None


def _fit_fault(fit: _Fit) -> str | None:
    if fit.path > OFF_PATH or fit.scale > OFF_SCALE or fit.angle > OFF_ANGLE:
        off = f"{fit.path:.2f} heights, {fit.scale:.2f} log size, {fit.angle:.2f} turns"
        return f"a motion of no kind (nearest {fit.guess.motion}, off by {off})"
    return None


def _fault(tracks: list[Track], best: _Explanation, unexplained: Float[Tensor, "T H W"]) -> str | None:
    """The first reason why these tracks are not those of a clean clip."""
    covered = torch.stack([track.mass for track in tracks]).sum(dim=0).clamp(min=20)
    strange = (unexplained > UNEXPLAINED).sum((1, 2)) / covered
    if strange.quantile(0.9) > MOST_UNEXPLAINED:
        return "pixels of no known colour"
    for track, fit in zip(tracks, best.fits, strict=True):
        if fault := _track_fault(track) or _fit_fault(fit):
            return fault
        if missing := _missing(track, fit, best):
            return f"a {track.shape} that is absent in {missing} frames"
    return None


# --- clip -> reading
def read_clip(frames: UInt8[Tensor, "T H W 3"], *, frame_rate: float) -> Reading:
    """Read a clip of the procedural world back from its pixels."""
    t = torch.arange(len(frames)) / frame_rate
    pixels = pool(frames)
    backdrop = read_backdrop(pixels, t=t)
    if backdrop.fault:
        return Reading((), backdrop.name, backdrop.pattern, "static", None, backdrop.fault)
    covers, unexplained = find_covers(pixels, backdrop)
    if not covers:
        return Reading((), backdrop.name, backdrop.pattern, "static", None, "no object in a colour of this world")
    tracks = track_things(covers)
    if any(track.poses[:, 0].isfinite().sum() < min(4, len(frames)) for track in tracks):
        return Reading((), backdrop.name, backdrop.pattern, "static", None, "an object that is hardly ever seen")
    options = _explain(tracks, backdrop, t=t, frame_rate=frame_rate)
    relation, order = _relate(tracks)

    def name(option: _Explanation) -> tuple[ThingReading, ...]:
        return tuple(_name(tracks[index], option.fits[index], frames.shape[1], frames.shape[2]) for index in order)

    under = {option.camera: name(option) for option in options if not any(map(_fit_fault, option.fits))}
    fault = _fault(tracks, options[0], unexplained)
    return Reading(name(options[0]), backdrop.name, backdrop.pattern, options[0].camera, relation, fault, under)


def _name(track: Track, fit: _Fit, height: int, width: int) -> ThingReading:
    radius = fit.origin[2].item()
    size = min(SIZES, key=lambda name: abs(math.log(SIZES[name]) - radius))
    speed = None if fit.guess.motion == "stays still" else fit.guess.speed
    centre = track.poses[:, :2] * height + torch.tensor([width / 2, height / 2])
    return ThingReading(track.shape, track.colour, size, fit.guess.motion, speed, centre)


def _relate(tracks: list[Track]) -> tuple[str | None, tuple[int, ...]]:
    """The relation of two things, and the order in which it holds."""
    if len(tracks) < 2:
        return None, (0,)
    if tracks[0].hidden.any():
        return "in front of", (0, 1)
    dx, dy = (tracks[1].poses - tracks[0].poses)[:, :2].nanmean(dim=0).tolist()
    across = abs(dx) >= abs(dy)
    return "left of" if across else "above", (0, 1) if (dx if across else dy) >= 0 else (1, 0)


# --- reading -> score
OPPOSITES = {"left of": "right of", "above": "below"}


def score(reading: Reading, attributes: dict[str, str]) -> dict[str, bool]:
    """For each stated attribute, whether the clip shows it; all false for a refused clip.

    Slots without a number belong to the object that the relation is about, slots ending in `_2` to the other one. An object that
    nobody asked for makes the object's attributes false. Left out: the speed of a thing that was asked to stay still, and the
    camera over a plain background, where it cannot be seen.
    """
    slots = [slot for slot in attributes if not _unjudgeable(slot, reading, attributes)]
    if reading.refused:
        return dict.fromkeys(slots, False)
    asked_two = any(slot.endswith("_2") or slot == "relation" for slot in attributes)
    if len(reading.things) > 1 and not asked_two:
        return {slot: slot in _SCENE_SLOTS and getattr(reading, slot) == attributes[slot] for slot in slots}
    if reading.pattern == "plain":
        reading = replace(reading, things=reading.under.get(attributes.get("camera", ""), reading.things))
    asked = {slot: attributes[slot] for slot in slots}
    results = [_score_as(reading, pair, relation, asked) for pair, relation in _assignments(reading)]
    return max(results, key=lambda result: sum(result.values()))


_SCENE_SLOTS = ("background", "pattern", "camera")


def _unjudgeable(slot: str, reading: Reading, attributes: dict[str, str]) -> bool:
    if slot.startswith("speed"):
        return attributes.get(slot.replace("speed", "motion")) == "stays still"
    return slot == "camera" and attributes.get("pattern", reading.pattern) == "plain" and reading.pattern == "plain"


def _assignments(reading: Reading) -> list[tuple[tuple[ThingReading, ...], str | None]]:
    """Who may be meant by the first and second object, and the relation that then holds."""
    if len(reading.things) < 2:
        return [(reading.things, None)]
    first, second = reading.things
    if reading.relation == "in front of":
        return [((second, first), "in front of"), ((first, second), None)]
    return [((first, second), reading.relation), ((second, first), OPPOSITES[reading.relation or "left of"])]


def _score_as(reading: Reading, things: tuple[ThingReading, ...], relation: str | None, attributes: dict[str, str]) -> dict[str, bool]:
    def shows(slot: str, value: str) -> bool:
        if slot in _SCENE_SLOTS:
            return getattr(reading, slot) == value
        if slot == "relation":
            return relation == value
        index = 1 if slot.endswith("_2") else 0
        return index < len(things) and getattr(things[index], slot.removesuffix("_2")) == value

    return {slot: shows(slot, value) for slot, value in attributes.items()}


# --- sound -> onsets
CLICK_BAND = 1500.0  # Hz: clicks ring above it, tones and ambiences lie below
CLICK_GAP = 0.15  # seconds; no thing bounces faster
_HOP = 0.0025  # seconds


def find_onsets(waveform: Float[Tensor, "C S"], *, sample_rate: int) -> tuple[float, ...]:
    """The times in seconds at which something clicks: where the energy above the tones jumps out of what is usual in the clip."""
    mono = waveform.float().mean(dim=0)
    spectrum = torch.fft.rfft(mono)
    spectrum[torch.fft.rfftfreq(len(mono), 1 / sample_rate) < CLICK_BAND] = 0
    hop = max(round(_HOP * sample_rate), 1)
    energy = torch.fft.irfft(spectrum, n=len(mono)).square().unfold(0, 2 * hop, hop).mean(dim=1)
    if not len(energy):
        return ()
    loud = max(10 * energy.median().item(), 0.1 * energy.max().item(), 1e-4)
    onsets: list[float] = []
    for index in (energy > loud).nonzero()[:, 0].tolist():
        time = (index + 1) * hop / sample_rate
        if not onsets or time - onsets[-1] > CLICK_GAP:
            onsets.append(time)
    return tuple(onsets)
