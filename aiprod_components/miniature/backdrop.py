"""frames -> background tones -> pattern -> camera motion

Lengths are fractions of the frame's height and the frame's centre is the origin, as in `world.py`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aiprod_components.miniature.render import PATTERN_DISTANCES, PATTERN_PERIOD
from aiprod_components.miniature.world import BACKGROUNDS, CAMERAS, PATTERNS

NEAR = 22.0  # colour levels from the line between a background's tones
OFF_TONE = 20.0  # colour levels by which a measured tone may miss the palette: half-blended backgrounds miss by 32
PACES = (0.5, 0.75, 1.0, 1.25, 1.5)  # a generated camera need not keep the world's exact speed
_MATCH = 0.5  # correlation below which a pattern is not one of this world's

Cameras = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Backdrop:
    """The background, and the cameras (each with its pace) that would move it as it is seen to move.

    A plain background fits every camera; diagonal stripes move alike under "jib up" and "dolly left". The things decide then.
    """

    name: str
    pattern: str
    cameras: Cameras
    tones: Float[Tensor, "2 3"]  # dark and light as measured; equal when plain
    fault: str | None


def distance_to_tones(pixels: Float[Tensor, "... 3"], tones: Float[Tensor, "2 3"]) -> tuple[Tensor, Float[Tensor, "... 3"]]:
    """Colour distance to the line between two tones, and the nearest point on it."""
    line = tones[1] - tones[0]
    share = (((pixels - tones[0]) @ line) / (line @ line).clamp(min=1e-6)).clamp(0, 1)
    base = tones[0] + share[..., None] * line
    return (pixels - base).norm(dim=-1), base


def camera_path(camera: str, t: Float[Tensor, " T"], *, pace: float) -> tuple[Float[Tensor, "2 T"], Float[Tensor, " T"]]:
    """Shift and zoom (world -> screen: (x + shift) * zoom) over time of a camera at `pace` times the world's speed."""
    across, down, zoom = CAMERAS[camera]
    return torch.stack([across * t, down * t]) * pace, torch.exp(zoom * pace * t)


def read_backdrop(pixels: Float[Tensor, "T H W 3"], *, t: Float[Tensor, " T"]) -> Backdrop:
    """The background whose tones most pixels have; its pattern; and the camera whose motion the pattern follows."""
    palettes = {name: _palette_tones(name) for name in BACKGROUNDS}
    sample = pixels[:: max(len(pixels) // 8, 1)]
    shares = {name: (distance_to_tones(sample, tones)[0] < NEAR).float().mean().item() for name, tones in palettes.items()}
    name = max(shares, key=lambda key: shares[key])
    away, base = distance_to_tones(pixels, palettes[name])
    behind = away < NEAR
    dark, light = palettes[name]
    share = ((base - dark) @ (light - dark)) / ((light - dark) @ (light - dark))
    patterned = (share[behind] > 0.5).float().mean().item() > 0.1
    tones = torch.stack([_middle(pixels[behind & (share < 0.35)], dark), _middle(pixels[behind & (share > 0.65)], light)])
    if not patterned:
        tones = torch.stack([_middle(pixels[behind], dark)] * 2)
    off = max((tones[0] - dark).norm().item(), (tones[1] - light).norm().item() if patterned else 0.0)
    anything = tuple((camera, 1.0) for camera in CAMERAS)
    pattern, cameras, match = _read_pattern(share, behind, t=t) if patterned else ("plain", anything, 1.0)
    fault = None
    if shares[name] < 0.35:
        fault = "no background of this world"
    elif behind.float().mean(dim=(1, 2)).min() < 0.25:
        fault = f"a background that is not {name} throughout"
    elif off > OFF_TONE:
        fault = f"a background {off:.0f} colour levels away from {name}"
    elif match < _MATCH:
        fault = f"a background that follows no pattern and camera (best match {match:.2f})"
    return Backdrop(name, pattern, cameras, tones, fault)


def _palette_tones(name: str) -> Float[Tensor, "2 3"]:
    dark = torch.tensor(BACKGROUNDS[name], dtype=torch.float32)
    return torch.stack([dark, (dark * 1.2 + 22).clamp(max=255)])


def _middle(pixels: Float[Tensor, "N 3"], default: Tensor) -> Tensor:
    return pixels.median(dim=0).values if len(pixels) else default


def _read_pattern(share: Float[Tensor, "T H W"], behind: Bool[Tensor, "T H W"], *, t: Tensor) -> tuple[str, Cameras, float]:
    """Pattern, the cameras that fit it, and the correlation of what they predict with the light tone's share.

    Where the pattern sits is read from the first frame, in which no camera has moved yet.
    """
    steps = torch.arange(8) * PATTERN_PERIOD / 8
    offsets = [(x, y) for x in steps.tolist() for y in steps.tolist()]
    still = [(pattern, offset, "static", 1.0) for pattern in PATTERNS[1:] for offset in offsets]
    pattern, offset, _, _ = max(still, key=lambda guess: _correlation(guess, share[:1, ::2, ::2], behind[:1, ::2, ::2], t=t[:1]))
    fine = [(pattern, (offset[0] + dx / 64, offset[1] + dy / 64), "static", 1.0) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    offset = max(fine, key=lambda guess: _correlation(guess, share[:1], behind[:1], t=t[:1]))[1]
    few = slice(None, None, max(len(t) // 8, 1))
    scores = {}
    for camera in CAMERAS:
        guesses = {(pattern, offset, camera, pace) for pace in (PACES if camera != "static" else (1.0,))}
        paced = {guess[3]: _correlation(guess, share[few, ::2, ::2], behind[few, ::2, ::2], t=t[few]) for guess in guesses}
        scores[camera] = max((match, pace) for pace, match in paced.items())
    best = max(scores.values())[0]
    return pattern, tuple((camera, pace) for camera, (match, pace) in scores.items() if match > best - 0.03), best


def _correlation(guess: tuple[str, tuple[float, float], str, float], share: Tensor, behind: Tensor, *, t: Tensor) -> float:
    """How well a guessed (pattern, offset, camera, pace) predicts the light tone's share where the background is seen."""
    pattern, (off_x, off_y), camera, pace = guess
    height, width = share.shape[1:]
    shift, zoom = camera_path(camera, t, pace=pace)
    y = ((torch.arange(height) + 0.5) / height - 0.5)[:, None]
    x = ((torch.arange(width) + 0.5 - width / 2) / height)[None, :]
    zoom = zoom[:, None, None]
    distance = PATTERN_DISTANCES[pattern](x / zoom - shift[0, :, None, None] - off_x, y / zoom - shift[1, :, None, None] - off_y) * zoom
    predicted, seen = (0.5 - distance * height).clamp(0, 1)[behind], share[behind]
    if len(seen) < 16:
        return 0.0
    predicted, seen = predicted - predicted.mean(), seen - seen.mean()
    return ((predicted * seen).mean() / math.sqrt(predicted.square().mean() * seen.square().mean() + 1e-9)).item()
