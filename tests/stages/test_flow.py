"""The stepped stages: batching changes nothing, guidance is combined, pins hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aiprod_components.calls import EVALUATIONS, Denoise, Guidance, Guide, LoraUse, Pin, Projection, Refine, Sampling
from aiprod_components.errors import CancelledError, NumericalError
from aiprod_components.families import make_family
from aiprod_components.local import Silent
from aiprod_components.media.frames import to_bytes
from aiprod_components.models.lora import inject, injected, save_lora
from aiprod_components.stages.base import SteppedStage, run_steps
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.flow import PREVIEW_FRAMES, FlowState, _Row
from aiprod_components.stages.refiner import Refiner
from aiprod_components.values import Latents, PromptEmbeds, VideoShape
from tests.stages.watching import Counter

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


@pytest.mark.parametrize("sampler", EVALUATIONS)
def test_a_plan_counts_the_network_s_calls_truly(sampler: str, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    predict = denoiser._network.predict
    monkeypatch.setattr(denoiser._network, "predict", lambda asked, **shape: rows.append(len(asked)) or predict(asked, **shape))
    guidance = Guidance(3.0, stg_scale=1.0, stg_blocks=(1,), interval=(0.3, 0.9))
    call = replace(some_call(), sampling=Sampling(SIGMAS, guidance, 1, sampler))
    latents = denoiser.run(call, Silent()).video
    assert latents.isfinite().all()
    assert sum(rows) == call.sampling.network_calls


def test_requests_with_other_samplers_and_guidance_share_a_batch(denoiser: Denoiser):
    samplings = [
        Sampling(SIGMAS, Guidance(), 1),
        Sampling(SIGMAS, Guidance(3.0, stg_scale=1.0, stg_blocks=(2,)), 2, "heun"),
        Sampling(SIGMAS, Guidance(4.0, rescale=0.7, projection=Projection(0.0, 1.0, -0.5)), 3, "dpmpp_2m"),
        Sampling(SIGMAS, Guidance(2.0, interval=(0.5, 0.9)), 4, "euler_ancestral"),
    ]
    calls = [replace(some_call(), sampling=sampling) for sampling in samplings]
    alone = [denoiser.run(call, Silent()).video for call in calls]
    states = [denoiser.start(call) for call in calls]
    for _ in range(3):
        states = denoiser.step(states)
    for state, expected in zip(states, alone, strict=True):
        torch.testing.assert_close(denoiser.finish(state).video, expected, rtol=1e-3, atol=1e-3)


def test_skipping_self_attention_is_another_prediction_and_scale_zero_is_none(denoiser: Denoiser):
    plain, none, skipped = (
        denoiser.run(replace(some_call(), sampling=Sampling(SIGMAS, guidance, 1)), Silent()).video
        for guidance in (Guidance(), Guidance(stg_blocks=(1,)), Guidance(stg_scale=1.0, stg_blocks=(1,)))
    )
    assert torch.equal(plain, none)
    assert not torch.allclose(plain, skipped, atol=0.05)


def test_a_guide_moves_the_prediction_and_the_order_of_guides_does_not_matter(denoiser: Denoiser):
    def guide(seed: int, frame: int, strength: float = 1.0) -> Guide:
        latents = torch.randn(1, 64, 1, 2, 3, generator=torch.Generator().manual_seed(seed))
        return Guide(Latents(latents), replace(VIDEO, num_frames=1), frame, strength)

    def run(*guides: Guide) -> torch.Tensor:
        return denoiser.run(replace(some_call(), guides=guides), Silent()).video

    alone = run()
    assert not torch.allclose(run(guide(1, 4)), alone, atol=0.05)
    torch.testing.assert_close(run(guide(1, 4), guide(2, 8)), run(guide(2, 8), guide(1, 4)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(run(guide(1, 4)), run(guide(1, 7)), atol=0.01)
    firm, faint = (run(guide(1, 4, strength)) for strength in (1.0, 0.05))
    assert not torch.allclose(firm, faint, atol=0.05)


@pytest.mark.parametrize(("sampler", "second"), [("heun", 0.4), ("res_2s", None)])
def test_a_faint_guide_is_as_noisy_as_the_latents_at_every_question(
    sampler: str, second: float | None, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[float, float]] = []
    predict = denoiser._network.predict

    def watched(rows: Sequence[_Row], *, video: VideoShape) -> list[torch.Tensor]:
        asked.extend((row.levels.max().item(), row.guides.freedom.max().item()) for row in rows)
        return predict(rows, video=video)

    monkeypatch.setattr(denoiser._network, "predict", watched)
    guide = Guide(Latents(torch.randn(1, 64, 1, 2, 3)), replace(VIDEO, num_frames=1), 4, 0.75)
    denoiser.run(replace(some_call(scale=1.0), sampling=Sampling((0.8, 0.4, 0.0), Guidance(), 1, sampler), guides=(guide,)), Silent())
    assert len(asked) == 3
    assert [guide for _, guide in asked] == pytest.approx([0.25 * level for level, _ in asked])
    assert 0.4 <= asked[1][0] < 0.8 and second in (None, pytest.approx(asked[1][0]))


def test_states_that_cannot_share_a_step_are_refused(denoiser: Denoiser):
    states = [denoiser.start(call) for call in (some_call(), replace(some_call(), loras=(LoraUse("distilled", 1.0),)))]
    with pytest.raises(ValueError, match="the same LoRAs"):
        denoiser.step(states)


def test_numbers_that_overflowed_are_an_error_and_no_video(denoiser: Denoiser):
    state = denoiser.start(some_call())
    with pytest.raises(NumericalError, match="lower guidance_scale"):
        denoiser.finish(replace(state, x=state.x / 0))


def test_a_call_s_loras_are_in_the_weights_while_it_runs_and_gone_after(tmp_path: Path):
    family = make_family("miniature", loras=str(tmp_path))
    network = family.load("denoiser")
    inject(network, rank=4, modules="attention_blocks")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.2)
    metadata = {"family": "miniature", "component": "denoiser"}
    save_lora(injected(network, name="loud"), tmp_path / "loud.safetensors", metadata=metadata)
    denoiser = Denoiser(family, device=torch.device("cpu"))
    plain = denoiser.run(some_call(), Silent()).video
    loud, quiet = (denoiser.run(replace(some_call(), loras=(LoraUse("loud", scale),)), Silent()).video for scale in (1.0, 0.0))
    assert not torch.allclose(loud, plain, atol=0.1)
    assert torch.equal(quiet, plain)
    assert torch.equal(denoiser.run(some_call(), Silent()).video, plain)


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


def states_of(denoiser: Denoiser, call: Denoise) -> list[tuple[FlowState, FlowState]]:
    """The states before and after each step."""
    steps: list[tuple[FlowState, FlowState]] = []
    run_steps(denoiser, call, Silent(), watch=lambda before, after: steps.append((before, after)))
    return steps


def shown(denoiser: Denoiser, latents: torch.Tensor) -> torch.Tensor:
    assert denoiser._preview is not None
    return to_bytes(denoiser._preview(latents))[0]


def test_who_watches_sees_each_step_before_progress_tells_of_it(denoiser: Denoiser):
    events: list[str] = []

    class Telling:
        def advance(self, done: int, total: int) -> None:
            events.append(f"told {done} of {total}")

    assert isinstance(denoiser, SteppedStage)
    run_steps(denoiser, some_call(), Telling(), watch=lambda before, after: events.append(f"{before.done} to {after.done}"))
    assert events == ["0 to 1", "told 1 of 3", "1 to 2", "told 2 of 3", "2 to 3", "told 3 of 3"]


def test_a_preview_is_of_the_clean_latents_that_a_step_leads_to(denoiser: Denoiser):
    pinned = torch.randn(1, 64, 1, 2, 3)
    steps = states_of(denoiser, some_call(pins=(Pin(Latents(pinned), 0, 0.75),)))
    for before, after in steps:
        level, next_level = before.levels(before.done), after.levels(after.done)
        velocity = (after.x - before.x) / (next_level - level)
        frames = denoiser.preview(before, after)
        assert frames is not None and frames.shape == (3, 16, 24, 3)
        assert (frames.int() - shown(denoiser, after.x - next_level * velocity).int()).abs().max() <= 1
    last = denoiser.preview(*steps[-1])
    assert last is not None and torch.equal(last, shown(denoiser, denoiser.finish(steps[-1][1]).video))


@pytest.mark.parametrize("sampler", EVALUATIONS)
def test_no_sampler_s_own_noise_is_in_a_preview(sampler: str, denoiser: Denoiser):
    sigmas = (*tuple(1 - step / 20 for step in range(20)), 0.0)
    steps = states_of(denoiser, replace(some_call(), sampling=Sampling(sigmas, Guidance(), 1, sampler)))
    first, *_, last = (denoiser.preview(*step) for step in steps)
    middle = denoiser.preview(*steps[16])
    assert first is not None and middle is not None and last is not None
    # Coming nearer: four steps before the end hardly anything is missing, where the latents are still a fifth noise.
    away = (middle.float() - last.float()).square().mean()
    assert away < (first.float() - last.float()).square().mean() / 2
    assert away < (shown(denoiser, steps[16][1].x).float() - last.float()).square().mean() / 2


def test_a_pinned_frame_is_in_every_preview(denoiser: Denoiser):
    pinned = torch.randn(1, 64, 1, 2, 3)
    for step in states_of(denoiser, some_call(pins=(Pin(Latents(pinned), 0, 1.0),))):
        frames = denoiser.preview(*step)
        assert frames is not None and torch.equal(frames[:1], shown(denoiser, pinned))


def test_a_preview_of_a_long_clip_shows_nine_frames_of_it_from_the_first_to_the_last(denoiser: Denoiser):
    video = VideoShape(num_frames=97, height=32, width=32, frame_rate=16.0)
    call = replace(some_call(scale=1.0), video=video, sampling=Sampling((1.0, 0.0), Guidance(), 1))
    ((before, after),) = states_of(denoiser, call)
    frames = denoiser.preview(before, after)
    assert after.x.shape[2] == 25 and PREVIEW_FRAMES == 9
    assert frames is not None and torch.equal(frames, shown(denoiser, after.x[:, :, ::3]))


def test_a_family_without_a_preview_shows_none():
    whole = make_family("miniature")
    family = replace(whole, components={name: part for name, part in whole.components.items() if name != "preview"})
    denoiser = Denoiser(family, device=torch.device("cpu"))
    assert [denoiser.preview(*step) for step in states_of(denoiser, some_call())] == [None] * 3
    assert not make_family("aiprod", weights="random").has("preview")
