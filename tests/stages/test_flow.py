"""The stepped stages: batching changes nothing, guidance is combined, pins hold."""

from dataclasses import replace

import pytest
import torch

from aiprod_components.calls import Denoise, Guidance, Pin, Refine, Sampling
from aiprod_components.errors import CancelledError
from aiprod_components.families import make_family
from aiprod_components.local import Silent
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.refiner import Refiner
from aiprod_components.values import Latents, PromptEmbeds, VideoShape

VIDEO = VideoShape(num_frames=9, height=32, width=48, frame_rate=16.0)
SHAPE = (1, 64, 3, 2, 3)
SIGMAS = (1.0, 0.8, 0.4, 0.0)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(make_family("miniature"), device=torch.device("cpu"))


def some_prompt(length: int) -> PromptEmbeds:
    generator = torch.Generator().manual_seed(length)
    embeds = torch.randn(1, length, 256, generator=generator)
    return PromptEmbeds(embeds, torch.ones(1, length, dtype=torch.bool), embeds[:, :1], torch.ones(1, 1, dtype=torch.bool))


def some_call(*, seed: int = 1, scale: float = 3.0, length: int = 5, pins: tuple[Pin, ...] = ()) -> Denoise:
    return Denoise(some_prompt(length), VIDEO, Sampling(SIGMAS, Guidance(scale), seed), pins)


class Counter:
    def __init__(self, *, stop_at: int | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.stop_at = stop_at

    def advance(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        if done == self.stop_at:
            raise CancelledError("not wanted any more")


def test_progress_is_a_true_step_k_of_n(denoiser: Denoiser):
    counter = Counter()
    assert denoiser.run(some_call(), counter).video.shape == SHAPE
    assert counter.seen == [(1, 3), (2, 3), (3, 3)]


def test_cancelled_work_stops_at_the_next_step(denoiser: Denoiser):
    counter = Counter(stop_at=1)
    with pytest.raises(CancelledError):
        denoiser.run(some_call(), counter)
    assert counter.seen == [(1, 3)]


def test_requests_of_one_shape_can_share_their_steps(denoiser: Denoiser):
    calls = [some_call(seed=1), some_call(seed=2, scale=1.0), some_call(seed=3, length=9)]
    alone = [denoiser.run(call, Silent()).video for call in calls]
    states = [denoiser.start(call) for call in calls]
    for _ in range(3):
        states = denoiser.step(states)
    for state, expected in zip(states, alone, strict=True):
        torch.testing.assert_close(denoiser.finish(state).video, expected, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_latents_and_another_seed_others(denoiser: Denoiser):
    first, again, other = (denoiser.run(some_call(seed=seed), Silent()).video for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other, atol=0.1)


def test_guidance_moves_the_prediction_away_from_the_negative_prompt(denoiser: Denoiser):
    one, three, five = (
        denoiser.run(replace(some_call(scale=scale), sampling=Sampling((1.0, 0.0), Guidance(scale), 1)), Silent()).video
        for scale in (1.0, 3.0, 5.0)
    )
    # In a single step the guided result is linear in the scale.
    torch.testing.assert_close(five - one, 2 * (three - one), rtol=1e-3, atol=1e-3)


def test_a_frame_pinned_at_full_strength_comes_out_as_it_went_in(denoiser: Denoiser):
    pinned = torch.randn(1, 64, 1, 2, 3)
    latents = denoiser.run(some_call(pins=(Pin(Latents(pinned), 0, 1.0),)), Silent()).video
    torch.testing.assert_close(latents[:, :, :1], pinned, rtol=0, atol=0)
    assert not torch.allclose(latents[:, :, 1:2], pinned, atol=0.1)


def test_refinement_starts_from_the_latents_it_is_given():
    refiner = Refiner(make_family("miniature"), device=torch.device("cpu"))
    latents = torch.randn(SHAPE)
    call = Refine(some_prompt(5), Latents(latents), VIDEO, Sampling((0.02, 0.0), Guidance(), 1))
    state = refiner.start(call)
    assert (state.x - 0.98 * latents).std() == pytest.approx(0.02, rel=0.1)
    assert refiner.run(call, Silent()).video.shape == SHAPE
