"""latents at one noise level -> questions to the network -> latents at the next

A sampler asks: it yields points and is sent the velocities there, so that whoever answers may put the questions of many
requests, each with a sampler of its own, into one batch. Noise levels broadcast against x; each token may be at its own. A pinned
one (from 0 to 0) comes out exactly as it went in, and a first level of 1, where log-SNR is infinite, is as good as any.

What every method comes down to on this flow: towards an estimate D of the data, x' = (sigma'/sigma) x + (1 - sigma'/sigma) D.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Query(NamedTuple):
    """What is the velocity at this point? `sigma` broadcasts against `x`."""

    x: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Memory:
    """What a multistep sampler keeps of the step before: the prediction it extrapolates (a velocity or clean latents), and its level."""

    prediction: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]


@dataclass(frozen=True)
class Point:
    """Where a step arrives, and what the next one may remember."""

    x: Float[Tensor, "..."]
    memory: Memory | None


Step = Generator[Query, Tensor, Point]


class Sampler(Protocol):
    """One step from `sigma` to `next_sigma`. `memory` is that of the step before; fresh noise is drawn only by those that need it."""

    def __call__(
        self, x: Tensor, *, sigma: Tensor, next_sigma: Tensor, memory: Memory | None, draw_noise: Callable[[], Tensor]
    ) -> Step: ...


def advance(step: Step, *, velocity: Callable[[Tensor, Tensor], Tensor]) -> Point:
    """Takes one step, asking `velocity(x, sigma)`."""
    query = next(step)
    while True:
        answer = velocity(query.x, query.sigma)
        try:
            query = step.send(answer)
        except StopIteration as end:
            return end.value


def euler(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
) -> Step:
    """First order: dx/dsigma = velocity. On this flow it is DDIM (Song et al. 2021) as well."""
    velocity = yield Query(x, sigma)
    return Point(x + (next_sigma - sigma) * velocity, None)


def euler_ancestral(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
) -> Step:
    """A step further down than `next_sigma`, then fresh noise up to it: DDPM's posterior (Ho et al. 2020; DDIM's eta 1, Song et al. 2021).

    The noise in the result has variance next_sigma^2 whatever part of it is fresh; from level 1 all of it is.
    """
    velocity = yield Query(x, sigma)
    data, noise = x - sigma * velocity, x + (1 - sigma) * velocity
    old = _noise_to_signal_left(sigma, next_sigma)
    mixed = old * noise + (1 - old**2).sqrt() * draw_noise()
    return Point((1 - next_sigma) * data + next_sigma * mixed, None)


def heun(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
) -> Step:
    """Second order: the mean of the velocities at both ends (Karras et al. 2022). To 0: Euler, for no network is asked at level 0."""
    velocity = yield Query(x, sigma)
    arrived = x + (next_sigma - sigma) * velocity
    if _is_last(next_sigma):
        return Point(arrived, None)
    velocity_there = yield Query(arrived, next_sigma)
    return Point(x + (next_sigma - sigma) * (velocity + velocity_there) / 2, None)


def dpmpp_2m(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
) -> Step:
    """DPM-Solver++(2M) (Lu et al. 2022): clean latents, extrapolated in log-SNR to the middle of the step. First step and last: Euler."""
    velocity = yield Query(x, sigma)
    data = x - sigma * velocity
    lead = 0.0 if memory is None else _lead(memory.sigma, sigma, next_sigma) * (data - memory.prediction)
    return Point(_towards(data + lead, x=x, sigma=sigma, next_sigma=next_sigma), Memory(data, sigma))


def res_2s(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
) -> Step:
    """RES (Zhang et al. 2023): second-order exponential Runge-Kutta on clean latents, c2 = 1/2 in log-SNR. To 0: Euler."""
    velocity = yield Query(x, sigma)
    data = x - sigma * velocity
    arrived = _towards(data, x=x, sigma=sigma, next_sigma=next_sigma)
    if _is_last(next_sigma):
        return Point(arrived, None)
    middle = _middle(sigma, next_sigma)
    halfway = _towards(data, x=x, sigma=sigma, next_sigma=middle)
    velocity_there = yield Query(halfway, middle)
    data_there = halfway - middle * velocity_there
    return Point(arrived + _weight_of_middle(sigma, next_sigma) * (data_there - data), None)


def gradient_estimation(
    x: Float[Tensor, "*shape"],
    *,
    sigma: Float[Tensor, "*levels"],
    next_sigma: Float[Tensor, "*levels"],
    memory: Memory | None,
    draw_noise: Callable[[], Tensor],
    gamma: float = 2.0,
) -> Step:
    """Euler along gamma v + (1 - gamma) v of the step before (Permenter & Yuan 2023). To 0: Euler.

    Gamma 1.5 and even steps are Adams-Bashforth 2; gamma 2 is of first order, and leans further on what changed.
    """
    velocity = yield Query(x, sigma)
    change = 0.0 if memory is None else torch.where(next_sigma > 0, gamma - 1, 0.0) * (velocity - memory.prediction)
    return Point(x + (next_sigma - sigma) * (velocity + change), Memory(velocity, sigma))


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "res_2s": res_2s,
    "gradient_estimation": gradient_estimation,
}
DRAWING = frozenset({"euler_ancestral"})  # those that draw fresh noise; each asks once, where it stands


def _is_last(next_sigma: Float[Tensor, "*levels"]) -> bool:
    return not bool(next_sigma.any())


def _towards(
    data: Float[Tensor, "*shape"], *, x: Float[Tensor, "*shape"], sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]
) -> Float[Tensor, "*shape"]:
    """Where the path ends if `data` is what it leads to. In terms of sigma'/sigma, which is finite wherever anything moves."""
    left = torch.where(next_sigma < sigma, next_sigma / sigma, 1.0)
    return left * x + (1 - left) * data


def _noise_to_signal_left(sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]) -> Float[Tensor, "*levels"]:
    """e^-h, where h >= 0 is what the step adds to log((1 - sigma) / sigma): 0 from level 1 or to 0, and 1 where nothing moves."""
    left = next_sigma / sigma * ((1 - sigma) / (1 - next_sigma))
    return torch.where(next_sigma < sigma, left, 1.0)


def _lead(
    before: Float[Tensor, "*levels"], sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]
) -> Float[Tensor, "*levels"]:
    """h / (2 h of the step before): 0 after level 1 (that h is infinite), to 0 (this one is), and where nothing moves."""
    h_before, h = -_noise_to_signal_left(before, sigma).log(), -_noise_to_signal_left(sigma, next_sigma).log()
    return torch.where(h.isfinite() & (h_before > 0), h / (2 * h_before), 0.0)


def _middle(sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]) -> Float[Tensor, "*levels"]:
    """The middle of the step in log-SNR. From level 1 there is none; then the middle in signal-to-noise ratio itself.

    That one is finite: 1/sigma = 1 + ratio, and x'/sigma' = x/sigma + the integral of the data's estimate over 1/sigma, whose midpoint
    rule is of second order too.
    """
    noise, signal = (sigma * next_sigma).sqrt(), ((1 - sigma) * (1 - next_sigma)).sqrt()
    return torch.where(sigma < 1, noise / (noise + signal), 2 * sigma * next_sigma / (sigma + next_sigma))


def _weight_of_middle(sigma: Float[Tensor, "*levels"], next_sigma: Float[Tensor, "*levels"]) -> Float[Tensor, "*levels"]:
    """(1 - sigma') h phi_2(-h) / c2, c2 = 1/2; from level 1 the midpoint rule's 1 - sigma', which is the limit for any finite middle."""
    left = _noise_to_signal_left(sigma, next_sigma)
    share = torch.where(left < 1, 2 * (1 + (1 - left) / left.log()), 0.0)
    return (1 - next_sigma) * torch.where(sigma < 1, share, 1.0)
