"""Sigmas against closed forms, and what every table entry promises."""

import itertools
import math

import pytest

from aiprod_components.diffusion.schedulers import (
    SCHEDULERS,
    TokenShift,
    cosine,
    explicit,
    karras,
    linear_quadratic,
    shifted_flow,
)
from aiprod_components.errors import InvalidRequestError


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("shift", [-0.5, 0.0, 2.05])
def test_every_scheduler_falls_strictly_from_one_to_zero_for_1_to_100_steps(name: str, shift: float):
    for steps in range(1, 101):
        sigmas = SCHEDULERS[name](steps, shift=shift)
        assert len(sigmas) == steps + 1
        assert sigmas[0] == 1.0 and sigmas[-1] == 0.0
        assert all(before > after for before, after in itertools.pairwise(sigmas))
        assert explicit(sigmas) == sigmas


def test_only_the_shifted_flows_heed_the_shift():
    heeding = {name for name, scheduler in SCHEDULERS.items() if scheduler(6, shift=0.0) != scheduler(6, shift=1.0)}
    assert heeding == {"shifted_flow", "stretched_flow"}


def test_without_shift_sigmas_are_evenly_spaced():
    assert shifted_flow(4, shift=0.0) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))


def test_a_shift_adds_to_the_log_odds_of_every_sigma():
    plain, shifted = shifted_flow(5, shift=0.0), shifted_flow(5, shift=0.8)
    for before, after in zip(plain[1:-1], shifted[1:-1], strict=True):
        assert math.log(after / (1 - after)) == pytest.approx(math.log(before / (1 - before)) + 0.8)


def test_the_shift_is_a_line_through_its_two_points():
    shift = TokenShift(few_tokens=1024, few_shift=0.95, many_tokens=4096, many_shift=2.05)
    assert (shift.at(1024), shift.at(4096), shift.at(2560)) == pytest.approx((0.95, 2.05, 1.5))


def test_linear_quadratic_removes_the_threshold_evenly_in_the_first_half():
    sigmas = linear_quadratic(10, threshold_noise=0.05)
    assert sigmas[:6] == pytest.approx((1.0, 0.99, 0.98, 0.97, 0.96, 0.95))


def test_linear_quadratic_bends_evenly_after_the_first_half():
    sigmas = linear_quadratic(10, threshold_noise=0.05)
    drops = [before - after for before, after in itertools.pairwise(sigmas)][5:]
    bends = [after - before for before, after in itertools.pairwise(drops)]
    assert bends == pytest.approx([bends[0]] * 4) and bends[0] > 0
    # The parabola leaves the line with its slope: half a bend more in the first step than the line's 0.01.
    assert drops[0] == pytest.approx(0.01 + bends[0] / 2)


def test_cosine_has_the_log_snr_of_the_variance_preserving_cosine_schedule():
    for step, sigma in enumerate(cosine(8)[1:-1], start=1):
        angle = (1 - step / 8) * math.pi / 2
        assert (1 - sigma) / sigma == pytest.approx(math.cos(angle) / math.sin(angle))


def test_karras_spaces_the_roots_of_noise_to_signal_evenly_down_to_sigma_min():
    *levels, end = karras(9, sigma_min=0.01, sigma_max=50.0, rho=5.0)
    roots = [(sigma / (1 - sigma)) ** (1 / 5) for sigma in levels[1:]]
    spacing = (50 ** (1 / 5) - 0.01 ** (1 / 5)) / 8
    assert roots[0] == pytest.approx(50 ** (1 / 5) - spacing)
    assert [before - after for before, after in itertools.pairwise(roots)] == pytest.approx([spacing] * 7)
    assert levels[-1] / (1 - levels[-1]) == pytest.approx(0.01) and end == 0.0


@pytest.mark.parametrize("sigmas", [[1.0, 0.0], [0.4, 0.1, 0.0], [1.0, 0.999, 1e-6, 0.0]])
def test_explicit_sigmas_that_fall_to_zero_are_taken_as_they_are(sigmas: list[float]):
    assert explicit(sigmas) == tuple(sigmas)


@pytest.mark.parametrize(
    ("sigmas", "named"),
    [
        ([], "got 0; for one step"),
        ([0.0], "got 1; for one step"),
        ([1.0, math.nan, 0.0], "got nan at index 1; use"),
        ([math.inf, 0.5, 0.0], "got inf at index 0; use"),
        ([1.5, 0.5, 0.0], "got 1.5; 1 is pure noise"),
        ([0.0, -1.0], "got 0.0; 1 is pure noise"),
        ([1.0, 0.5, 0.7, 0.0], "got 0.7 after 0.5 at index 2; sort"),
        ([1.0, 0.5, 0.5, 0.0], "got 0.5 after 0.5 at index 2; sort"),
        ([1.0, 0.0, 0.0], "got 0.0 after 0.0 at index 2; sort"),
        ([1.0, 0.5, 0.1], "got 0.1; let 0.0 be the last"),
        ([1.0, 0.5, -0.1], "got -0.1; let 0.0 be the last"),
    ],
)
def test_explicit_sigmas_at_fault_are_refused_with_the_value_and_the_way_out(sigmas: list[float], named: str):
    with pytest.raises(InvalidRequestError) as refused:
        explicit(sigmas)
    assert refused.value.field == "sigmas" and refused.value.message.startswith("sigmas must")
    assert named in refused.value.message
