"""Guidance against closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aiprod_components.calls import Guidance, Pass, Projection
from aiprod_components.diffusion.guiders import bounded, combine, projected

PASSES: tuple[Pass, ...] = ("conditional", "unconditional", "perturbed")
EVERYTHING = Guidance(4.0, rescale=0.7, stg_scale=0.8, stg_blocks=(1,), projection=Projection(0.3, threshold=0.5, momentum=-0.4))


def estimates(*names: Pass, batch: int = 1) -> dict[Pass, Tensor]:
    """Of latents that are not centred, so that a mean taken for a deviation shows."""
    generator = torch.Generator().manual_seed(0)
    drawn: dict[Pass, Tensor] = {name: torch.randn(batch, 3, 2, 4, 4, generator=generator, dtype=torch.float64) + 0.5 for name in PASSES}
    return {name: drawn[name] for name in names}


def guided(guidance: Guidance, denoised: dict[Pass, Tensor], *, momentum: Tensor | None = None) -> Tensor:
    return combine(guidance, denoised, momentum=momentum).denoised


def root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(5.0, rescale=0.5), EVERYTHING], ids=["none", "rescaled", "everything"])
def test_the_prediction_with_the_prompt_alone_comes_back_as_it_is(guidance: Guidance):
    alone, momentum = estimates("conditional"), torch.ones(1, 3, 2, 4, 4)
    result = combine(guidance, alone, momentum=momentum)
    assert result.denoised is alone["conditional"] and result.momentum is momentum


def test_scale_one_is_the_prediction_with_the_prompt_and_zero_the_one_without():
    both = estimates("conditional", "unconditional")
    torch.testing.assert_close(guided(Guidance(1.0), both), both["conditional"])
    torch.testing.assert_close(guided(Guidance(0.0), both), both["unconditional"])


def test_guidance_is_linear_in_its_scale():
    both = estimates("conditional", "unconditional")
    at_two, at_five, at_eight = (guided(Guidance(scale), both) for scale in (2.0, 5.0, 8.0))
    torch.testing.assert_close(at_five - at_two, at_eight - at_five)
    torch.testing.assert_close(at_five, 5 * both["conditional"] - 4 * both["unconditional"])


def test_skip_guidance_alone_leads_away_from_the_perturbed_prediction():
    both = estimates("conditional", "perturbed")
    torch.testing.assert_close(guided(Guidance(stg_scale=1.5), both), 2.5 * both["conditional"] - 1.5 * both["perturbed"])


def test_the_two_kinds_of_guidance_add_up():
    every = estimates(*PASSES)
    expected = (
        every["conditional"] + 2 * (every["conditional"] - every["unconditional"]) + 0.5 * (every["conditional"] - every["perturbed"])
    )
    torch.testing.assert_close(guided(Guidance(3.0, stg_scale=0.5), every), expected)


def test_rescaling_moves_the_deviation_all_the_way_to_that_of_the_prediction_with_the_prompt():
    every = estimates(*PASSES)
    plain = Guidance(6.0, stg_scale=0.5)
    unscaled, half, whole = (guided(replace(plain, rescale=amount), every) for amount in (0.0, 0.5, 1.0))
    assert unscaled.std() > 2 * every["conditional"].std()
    assert whole.std().item() == pytest.approx(every["conditional"].std().item())
    torch.testing.assert_close(half, (unscaled + whole) / 2)
    # It scales and nothing else: the result points the same way.
    torch.testing.assert_close(whole / whole.norm(), unscaled / unscaled.norm())


def test_a_pinned_frame_does_not_change_how_the_others_are_guided():
    every = estimates(*PASSES)
    # What is pinned is the same in every estimate, and here far from the rest.
    pinned: dict[Pass, Tensor] = {name: torch.cat([torch.full_like(x[:, :, :1], 9.0), x], dim=2) for name, x in every.items()}
    free = torch.ones(1, 1, 3, 4, 4)
    free[:, :, 0] = 0
    for guidance in (EVERYTHING, Guidance(5.0, rescale=1.0), Guidance(5.0, projection=Projection(0.0, threshold=0.1, momentum=0.0))):
        beside = combine(guidance, pinned, momentum=None, free=free > 0).denoised[:, :, 1:]
        torch.testing.assert_close(beside, guided(guidance, every))


def test_a_bound_too_small_for_the_numbers_is_no_division_by_zero():
    both: dict[Pass, Tensor] = {"conditional": torch.ones(1, 2, 3), "unconditional": torch.ones(1, 2, 3)}
    guidance = Guidance(3.0, projection=Projection(0.0, threshold=1e-46, momentum=0.0))
    torch.testing.assert_close(guided(guidance, both), torch.ones(1, 2, 3))


def test_rescaling_nothing_but_a_constant_is_finite():
    flat: dict[Pass, Tensor] = {"conditional": torch.full((1, 2, 3), 2.0), "unconditional": torch.full((1, 2, 3), 1.0)}
    torch.testing.assert_close(guided(Guidance(3.0, rescale=1.0), flat), torch.full((1, 2, 3), 4.0))


def test_a_projection_that_leaves_everything_is_plain_guidance():
    every = estimates(*PASSES)
    plain = Guidance(4.0, stg_scale=0.5, rescale=0.3)
    idle = replace(plain, projection=Projection(parallel=1.0, threshold=0.0, momentum=0.0))
    torch.testing.assert_close(guided(idle, every, momentum=torch.randn(1, 3, 2, 4, 4, dtype=torch.float64)), guided(plain, every))


def test_without_its_parallel_part_guidance_is_orthogonal_to_the_prediction():
    both = estimates("conditional", "unconditional")
    change = guided(Guidance(4.0, projection=Projection(parallel=0.0, momentum=0.0)), both) - both["conditional"]
    assert (change * both["conditional"]).sum().item() == pytest.approx(0, abs=1e-9) and change.norm() > 1
    # What was taken away lies along the prediction.
    taken = 3 * (both["conditional"] - both["unconditional"]) - change
    cosine = torch.nn.functional.cosine_similarity(taken.flatten(), both["conditional"].flatten(), dim=0)
    assert abs(cosine.item()) == pytest.approx(1)


def test_the_parallel_part_is_taken_as_often_as_asked():
    both = estimates("conditional", "unconditional")
    none, half, whole = (guided(Guidance(4.0, projection=Projection(parallel=share, momentum=0.0)), both) for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + whole) / 2)
    assert not torch.allclose(none, whole)


def test_guidance_is_bounded_by_the_threshold_and_left_alone_below_it():
    difference = estimates("conditional")["conditional"]
    size = root_mean_square(difference)
    counted = torch.ones_like(difference)
    shorter = bounded(difference, Projection(threshold=size / 4), counted=counted)
    torch.testing.assert_close(shorter, difference / 4)
    assert root_mean_square(shorter) == pytest.approx(size / 4)
    torch.testing.assert_close(bounded(difference, Projection(threshold=size * 1.01), counted=counted), difference)
    torch.testing.assert_close(bounded(difference, Projection(threshold=0.0), counted=counted), difference)
    torch.testing.assert_close(bounded(0 * difference, Projection(threshold=1.0), counted=counted), 0 * difference)


def test_the_bound_holds_before_the_projection():
    both = estimates("conditional", "unconditional")
    change = guided(Guidance(2.0, projection=Projection(parallel=0.0, threshold=0.1, momentum=0.0)), both) - both["conditional"]
    difference = both["conditional"] - both["unconditional"]
    difference = difference * 0.1 / root_mean_square(difference)
    along = both["conditional"] / both["conditional"].norm()
    torch.testing.assert_close(change, difference - (difference * along).sum() * along)


def test_nothing_is_parallel_to_nothing():
    difference = torch.ones(1, 4)
    torch.testing.assert_close(projected(difference, torch.zeros(1, 4), parallel=0.0, counted=torch.ones(1, 4)), difference)


def test_momentum_runs_over_the_steps():
    guidance = Guidance(3.0, projection=Projection(parallel=1.0, momentum=-0.5))
    generator = torch.Generator().manual_seed(1)
    steps = [(torch.randn(1, 5, generator=generator), torch.randn(1, 5, generator=generator)) for _ in range(3)]
    momentum, running = None, torch.zeros(1, 5)
    for conditional, unconditional in steps:
        result = combine(guidance, {"conditional": conditional, "unconditional": unconditional}, momentum=momentum)
        momentum, running = result.momentum, conditional - unconditional - 0.5 * running
        torch.testing.assert_close(momentum, running)
        torch.testing.assert_close(result.denoised, conditional + 2 * running)


def test_without_a_projection_there_is_no_momentum():
    assert combine(Guidance(3.0), estimates("conditional", "unconditional"), momentum=None).momentum is None


@pytest.mark.parametrize("guidance", [Guidance(3.0, rescale=0.6), EVERYTHING], ids=["rescaled", "everything"])
def test_two_samples_guided_together_are_each_alone(guidance: Guidance):
    together = estimates(*PASSES, batch=2)
    together["conditional"][1] *= 5
    momentum = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result = combine(guidance, together, momentum=momentum)
    for row in (0, 1):
        alone = combine(guidance, {name: each[row : row + 1] for name, each in together.items()}, momentum=momentum[row : row + 1])
        torch.testing.assert_close(result.denoised[row : row + 1], alone.denoised)
        if guidance.projection is not None:
            assert result.momentum is not None and alone.momentum is not None
            torch.testing.assert_close(result.momentum[row : row + 1], alone.momentum)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("stg_scale", [0.0, 0.8])
def test_the_passes_of_a_noise_level_are_those_that_matter_there(scale: float, stg_scale: float):
    guidance, every = Guidance(scale, rescale=0.4, stg_scale=stg_scale), estimates(*PASSES)
    passes = guidance.passes_at(0.5)
    assert passes[0] == "conditional"
    of_all = guided(guidance, every)
    torch.testing.assert_close(guided(guidance, {name: every[name] for name in passes}), of_all)
    for name in PASSES:
        changed = guided(guidance, {**every, name: every[name].flip(1)})
        assert torch.allclose(changed, of_all) == (name not in passes)


@pytest.mark.parametrize("guidance", [replace(EVERYTHING, interval=(0.2, 0.8)), Guidance(3.0, interval=(0.2, 0.8))], ids=["all", "scale"])
def test_guidance_asks_for_more_than_the_prompt_only_within_its_interval_ends_included(guidance: Guidance):
    inside = guidance.passes_at(0.5)
    assert len(inside) > 1
    assert guidance.passes_at(0.2) == guidance.passes_at(0.8) == inside
    for sigma in (0.0, math.nextafter(0.2, 0), math.nextafter(0.8, 1), 1.0):
        assert guidance.passes_at(sigma) == ("conditional",)
