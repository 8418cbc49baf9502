"""Noise, pins and positions against closed forms."""

import torch

from aiprod_components.diffusion.conditioning import add_noise, pin_latents
from aiprod_components.diffusion.noise import draw_noise
from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.values import LatentGrid, VideoShape


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
