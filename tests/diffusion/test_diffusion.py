"""The mathematics of sampling against closed forms."""

import itertools
import math

import pytest
import torch

from aiprod_components.diffusion.conditioning import add_noise, pin_latents
from aiprod_components.diffusion.guiders import classifier_free
from aiprod_components.diffusion.noise import draw_noise
from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.diffusion.samplers import euler
from aiprod_components.diffusion.schedulers import TokenShift, shifted_flow
from aiprod_components.values import LatentGrid, VideoShape


@pytest.mark.parametrize("steps", [1, 2, 8, 30])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 2.05])
def test_sigmas_fall_from_one_to_zero(steps: int, shift: float):
    sigmas = shifted_flow(steps, shift=shift)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1.0 and sigmas[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_without_shift_sigmas_are_evenly_spaced():
    assert shifted_flow(4, shift=0.0) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))


def test_a_shift_adds_to_the_log_odds_of_every_sigma():
    plain, shifted = shifted_flow(5, shift=0.0), shifted_flow(5, shift=0.8)
    for before, after in zip(plain[1:-1], shifted[1:-1], strict=True):
        assert math.log(after / (1 - after)) == pytest.approx(math.log(before / (1 - before)) + 0.8)


def test_the_shift_is_a_line_through_its_two_points():
    shift = TokenShift(few_tokens=1024, few_shift=0.95, many_tokens=4096, many_shift=2.05)
    assert (shift.at(1024), shift.at(4096), shift.at(2560)) == pytest.approx((0.95, 2.05, 1.5))


def test_euler_is_exact_on_a_straight_path():
    data, noise = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    x = noise
    sigmas = shifted_flow(7, shift=0.5)
    for sigma, next_sigma in itertools.pairwise(sigmas):
        x = euler(x, velocity=noise - data, sigma=torch.tensor(sigma), next_sigma=torch.tensor(next_sigma))
    torch.testing.assert_close(x, data)


def test_euler_converges_at_first_order():
    def error(steps: int) -> float:
        # dx/dsigma = x from sigma 1 to 0 has the solution x(0) = x(1) / e.
        x = torch.ones(1, dtype=torch.float64)
        sigmas = shifted_flow(steps, shift=0.0)
        for sigma, next_sigma in itertools.pairwise(sigmas):
            x = euler(
                x, velocity=x, sigma=torch.tensor(sigma, dtype=torch.float64), next_sigma=torch.tensor(next_sigma, dtype=torch.float64)
            )
        return abs(x.item() - math.exp(-1))

    assert math.log2(error(64) / error(128)) == pytest.approx(1.0, abs=0.05)


def test_a_guidance_scale_of_one_is_the_conditional_prediction():
    conditional, unconditional = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(classifier_free(conditional, unconditional, scale=1.0), conditional)
    torch.testing.assert_close(classifier_free(conditional, unconditional, scale=0.0), unconditional)


def test_noise_is_the_same_for_a_seed_and_independent_between_purposes():
    first, again = (draw_noise((1, 2, 50, 40), seed=7, purpose="denoise") for _ in range(2))
    other = draw_noise((1, 2, 50, 40), seed=7, purpose="refine")
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    correlation = torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]
    assert abs(correlation) < 0.05


def test_a_pin_of_strength_one_is_clean_and_of_strength_half_is_half_noised():
    free, pinned = torch.zeros(1, 2, 4, 2, 2), torch.ones(1, 2, 1, 2, 2)
    conditioning = pin_latents(free, [(pinned, 0, 1.0), (2 * pinned, 2, 0.5)])
    assert conditioning.freedom[0, 0, :, 0, 0].tolist() == [0.0, 1.0, 0.5, 1.0]
    noise = torch.full_like(free, 10.0)
    noisy = add_noise(conditioning.clean, noise=noise, sigma=conditioning.freedom * 1.0)
    assert noisy[0, 0, :, 0, 0].tolist() == [1.0, 10.0, 6.0, 10.0]


def test_positions_are_in_seconds_and_pixels_with_the_first_frame_alone():
    positions = grid_positions(VideoShape(9, 32, 48, 8.0), grid=LatentGrid(time=4, space=16, channels=1))
    assert positions.shape == (3 * 2 * 3, 3)
    assert positions[0].tolist() == [0.0, 8.0, 8.0]
    # The second latent frame holds frames 1 to 4, whose middle is frame 2.5; the last token is the lower right corner.
    assert positions[6].tolist() == [2.5 / 8, 8.0, 8.0]
    assert positions[-1].tolist() == [6.5 / 8, 24.0, 40.0]
