"""number of steps and tokens -> sigmas, falling from 1 to 0"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from aiprod_components.errors import InvalidRequestError


@runtime_checkable
class Scheduler(Protocol):
    """How the entries of `SCHEDULERS` are called: num_inference_steps + 1 sigmas, from exactly 1 down to exactly 0."""

    def __call__(self, num_inference_steps: int, *, shift: float) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class TokenShift:
    """More tokens need more of the time spent at high noise: the shift in log-SNR grows linearly with their number.

    (Esser et al. 2024, section 5.3.2, as a line through two points as in LTX-Video, HaCohen et al. 2024.)
    """

    few_tokens: int
    few_shift: float
    many_tokens: int
    many_shift: float

    def at(self, num_tokens: int) -> float:
        """The shift for so many tokens: linear between the two that are named, and beyond them."""
        slope = (self.many_shift - self.few_shift) / (self.many_tokens - self.few_tokens)
        return self.few_shift + slope * (num_tokens - self.few_tokens)


def shifted_flow(num_inference_steps: int, *, shift: float) -> tuple[float, ...]:
    """Evenly spaced times in (0, 1], the log-odds of each moved by `shift`: sigma = 1 / (1 + (1/t - 1) e^-shift); then 0."""
    times = [1 - step / num_inference_steps for step in range(num_inference_steps)]
    return (*(1 / (1 + (1 / t - 1) * math.exp(-shift)) for t in times), 0.0)


def stretched_flow(num_inference_steps: int, *, shift: float, last: float = 0.1) -> tuple[float, ...]:
    """`shifted_flow` without its 0, stretched from 1 down to `last`, then 0 (LTX-Video, HaCohen et al. 2024).

    In float32, operation by operation as diffusers does it, because its networks' results are compared bit by bit.
    """
    times = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps).astype(np.float32)
    shifted = math.exp(shift) / (math.exp(shift) + (1 / times - 1) ** 1.0)
    if num_inference_steps == 1:
        return (float(shifted[0]), 0.0)  # nothing to stretch: the only level is the first
    remains = 1 - shifted
    stretched = 1 - remains / (remains[-1] / (1 - last))
    return (*(float(sigma) for sigma in stretched), 0.0)


def linear_quadratic(num_inference_steps: int, *, threshold_noise: float = 0.025) -> tuple[float, ...]:
    """Half of the steps remove the first `threshold_noise` (below 0.5) evenly, the rest ever more of it (Movie Gen, Polyak et al. 2024).

    The parabola goes on with the slope of the line, and ends with no noise left.
    """
    linear_steps = num_inference_steps // 2
    quadratic_steps = num_inference_steps - linear_steps
    slope = threshold_noise / max(linear_steps, 1)
    bend = (1 - threshold_noise - slope * quadratic_steps) / quadratic_steps**2
    line = [1 - slope * step for step in range(linear_steps + 1)]
    parabola = [line[-1] - (slope + bend * step) * step for step in range(1, quadratic_steps)]
    return (*line, *parabola, 0.0)


def cosine(num_inference_steps: int) -> tuple[float, ...]:
    """The log-SNR of the cosine schedule (Nichol & Dhariwal 2021, without its offset): sigma = sin a / (sin a + cos a), a = t pi/2.

    The same as CosMap of Esser et al. 2024, section 3.1; times t are evenly spaced.
    """
    angles = [(1 - step / num_inference_steps) * math.pi / 2 for step in range(num_inference_steps)]
    return (*(math.sin(angle) / (math.sin(angle) + math.cos(angle)) for angle in angles), 0.0)


def karras(num_inference_steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> tuple[float, ...]:
    """Noise-to-signal ratios s whose roots s^(1/rho) are evenly spaced (Karras et al. 2022, equation 5), as sigma = s / (1 + s).

    The first is 1, not that of `sigma_max`: sampling starts from pure noise.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ratios = [(high + (low - high) * step / (num_inference_steps - 1)) ** rho for step in range(1, num_inference_steps)]
    return (1.0, *(ratio / (1 + ratio) for ratio in ratios), 0.0)


def explicit(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The client's own sigmas: strictly falling, from above 0 and at most 1, to 0. Raises InvalidRequestError naming the one at fault."""
    numbers = tuple(sigmas)
    if len(numbers) < 2:
        raise _refused(f"must hold at least 2 numbers, got {len(numbers)}; for one step ask for [1.0, 0.0]")
    for index, sigma in enumerate(numbers):
        if not math.isfinite(sigma):
            raise _refused(f"must be finite numbers, got {sigma} at index {index}; use numbers from 1 down to 0")
    if not 0 < numbers[0] <= 1:
        raise _refused(f"must begin above 0 and at most at 1, got {numbers[0]}; 1 is pure noise")
    for index, (before, after) in enumerate(itertools.pairwise(numbers)):
        if after >= before:
            raise _refused(f"must fall at every step, got {after} after {before} at index {index + 1}; sort them and leave out repetitions")
    if numbers[-1] != 0:
        raise _refused(f"must end in 0, got {numbers[-1]}; let 0.0 be the last")
    return numbers


def _refused(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"sigmas {reason}", field="sigmas")


def _unshifted(schedule: Callable[[int], tuple[float, ...]]) -> Scheduler:
    """A schedule that is the same for any number of tokens."""

    def scheduler(num_inference_steps: int, *, shift: float) -> tuple[float, ...]:
        return schedule(num_inference_steps)

    return scheduler


SCHEDULERS: dict[str, Scheduler] = {
    "shifted_flow": shifted_flow,
    "stretched_flow": stretched_flow,
    "linear_quadratic": _unshifted(linear_quadratic),
    "cosine": _unshifted(cosine),
    "karras": _unshifted(karras),
}
