"""a sound alone -> held against diffusers' pipeline with every pass isolated; nothing that is seen is heard; as long as it is asked for"""

import io
from collections.abc import Callable
from typing import Any, cast

import av
import numpy as np
import pytest
import torch

from aiprod_components.calls import DenoiseSound, Guidance, Sampling
from aiprod_components.errors import CancelledError
from aiprod_components.local import Silent, run_plan
from aiprod_components.plan import fill
from aiprod_components.values import AudioLatents, Video
from deployments.engine import Watched
from tests.ltx2.desk import Desk, calls_of
from tests.ltx2.monolith import Monolith

SOUND: dict[str, Any] = {"pipeline": "text_to_audio", "prompt": "rain on a roof", "num_frames": 12, "seed": 5}
TWO_STEPS = {**SOUND, "num_inference_steps": 2}
AAC_FRAME = 1024


def latents(here: Desk, **fields: Any) -> torch.Tensor:
    plan = here.ask(**{**TWO_STEPS, **fields}).plan(here.family)
    results: dict[str, Any] = {}
    for step in plan.steps[:-1]:
        results[step.name] = here.stages[step.call.stage].run(fill(step.call, results), Silent())
    return cast(AudioLatents, results["draft"]).audio


def sound_file(here: Desk, **fields: Any) -> Video:
    return run_plan(here.ask(**{**TWO_STEPS, **fields}).plan(here.family), stages=here.stages)


def heard(file: Video) -> tuple[np.ndarray, int, int]:
    """Samples of each channel, so many a second, and how many the file says that it has."""
    with av.open(io.BytesIO(file.data), "r") as container:
        (stream,) = container.streams.audio
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
        said = round(float((stream.duration or 0) * (stream.time_base or 0)) * stream.codec_context.sample_rate)
        return samples, stream.codec_context.sample_rate, said


def by_hand(here: Desk, *, height: int = 64, **fields: Any) -> torch.Tensor:
    """diffusers' pipeline, whose transformer keeps pictures and sound apart in every pass; its pictures are other ones, and more."""
    request = here.ask(**{**TWO_STEPS, **fields})
    call = cast(DenoiseSound, calls_of(request.plan(here.family))["draft"])
    draws, monolith = torch.Generator().manual_seed(request.seed), Monolith(here.family)
    noise = torch.randn((1, 8, here.family.grid.audio_tokens_of(call.video), 16), generator=draws)
    forward = monolith.pipe.transformer.forward
    monolith.pipe.transformer.forward = lambda **question: forward(**{**question, "isolate_modalities": True})
    monolith.pipe.prepare_audio_latents = lambda *_, **__: noise.permute(0, 2, 1, 3).flatten(2)
    guidance = call.sampling.guidance
    sampling = Sampling(call.sampling.sigmas, guidance, request.seed, audio_guidance=guidance)
    asked: dict[str, Any] = {"prompt": request.prompt, "height": height, "width": 64, "num_frames": request.num_frames}
    negative = {} if guidance == Guidance() else {"negative_prompt": ""}
    return monolith.text_to_video(sampling, draws, **asked, **negative).audio


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
@pytest.mark.parametrize("fields", [{}, {"guidance_scale": 4, "negative_prompt": ""}], ids=["guided as usual", "guided otherwise"])
def test_it_is_what_diffusers_makes_of_the_same_noise_with_every_pass_isolated(
    version: str, fields: dict[str, Any], desk: Callable[..., Desk]
) -> None:
    here = desk(version)
    assert torch.equal(latents(here, **fields), by_hand(here, **fields))


def test_unguided_it_is_what_diffusers_makes_too(desk: Callable[..., Desk]) -> None:
    here = desk("2.3", variant="distilled")
    made = latents(here)
    assert torch.equal(made, by_hand(here)) and torch.equal(made, by_hand(here, height=128)), "whatever is beside it"


def test_nothing_of_the_pictures_beside_it_is_heard_and_they_are_one_token(desk: Callable[..., Desk]) -> None:
    here, asked = desk("2.3"), list[dict[str, Any]]()
    transformer: Any = here.stages["denoiser"]._network._transformer  # pyright: ignore[reportAttributeAccessIssue]
    forward = transformer.forward

    def blinded(**question: Any) -> Any:
        asked.append(question)
        return forward(**{**question, "hidden_states": torch.rand_like(question["hidden_states"])})

    before = latents(here)
    transformer.forward = blinded
    try:
        assert torch.equal(latents(here), before)
    finally:
        transformer.forward = forward
    assert all(question["isolate_modalities"] and question["hidden_states"].shape[1] == 1 for question in asked)
    assert [len(question["audio_hidden_states"]) for question in asked] == [2, 1, 2, 1], "two passes together, then the one that skips"
    assert len([question for question in asked if question["spatio_temporal_guidance_blocks"]]) == 2


@pytest.mark.parametrize("container", ["m4a", "wav"])
@pytest.mark.parametrize(("num_frames", "frame_rate"), [(1, 24), (13, 23.976), (10, 30)])
def test_a_file_is_exactly_as_long_as_it_is_asked_for(
    num_frames: int, frame_rate: float, container: str, desk: Callable[..., Desk]
) -> None:
    file = sound_file(desk("2.3"), num_frames=num_frames, frame_rate=frame_rate, output_format=container)
    samples, rate, said = heard(file)
    length = round(num_frames / frame_rate * 48_000)
    assert (rate, said) == (48_000, length)
    assert length <= samples.size / 2 < length + AAC_FRAME and (container == "m4a" or samples.size == 2 * length)
    assert file.media_type == {"m4a": "audio/mp4", "wav": "audio/wav"}[container]


def test_both_files_carry_the_same_sound_and_bear_its_digest(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    exact, packed = (sound_file(here, output_format=name) for name in ("wav", "m4a"))
    assert exact.frames_digest == packed.frames_digest and exact.data != packed.data
    one, other = heard(exact)[0].reshape(-1, 2).T / 2**15, heard(packed)[0][:, : 12 * 2000]
    assert np.abs(one).max() > 0.01 and np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8


def test_a_2_0_checkpoint_s_sound_has_its_own_rate(desk: Callable[..., Desk]) -> None:
    assert heard(sound_file(desk("2.0"), output_format="wav"))[1:] == (24_000, 12_000)


def test_the_same_seed_is_the_same_sound_and_no_other_is(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    one, again, *others = (latents(here, **said) for said in ({}, {}, {"seed": 6}, {"guidance_scale": 1}, {"prompt": "thunder"}))
    assert torch.equal(one, again) and not any(torch.allclose(one, other) for other in others)


def test_it_ends_between_two_steps_and_says_how_far_it_is(desk: Callable[..., Desk]) -> None:
    here, told = desk("2.3"), list[tuple[int, int]]()
    plan = here.ask(**{**SOUND, "num_inference_steps": 5}).plan(here.family)
    prompt, call = (step.call for step in plan.steps[:2])
    embeds = here.stages["text_encoder"].run(prompt, Silent())
    progress = Watched()

    class Stopping:
        def advance(self, done: int, total: int) -> None:
            told.append((done, total))
            if done == 2:
                progress.stop()
            progress.advance(done, total)

    with pytest.raises(CancelledError):
        here.stages["denoiser"].run(fill(call, {"prompt": embeds}), Stopping())
    assert told == [(1, 5), (2, 5)]


def test_sounds_of_one_length_go_together_and_others_do_not(desk: Callable[..., Desk]) -> None:
    here = desk("2.3")
    stage: Any = here.stages["denoiser"]

    def begun(**fields: Any) -> Any:
        prompt, call = (step.call for step in here.ask(**{**TWO_STEPS, **fields}).plan(here.family).steps[:2])
        return stage.start(fill(call, {"prompt": here.stages["text_encoder"].run(prompt, Silent())}))

    alone = stage.step([begun()])[0]
    together = stage.step([begun(), begun(seed=6)])[0]
    assert torch.allclose(together.sound.x, alone.sound.x, atol=1e-3)
    with pytest.raises(ValueError, match="one video shape"):
        stage.step([begun(), begun(num_frames=13)])
