"""What goes wrong with LTX-2 unless one knows: each of these fails when the trap is fallen into"""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, cast

import av
import pytest
import torch

from aiprod_components.calls import DecodeAudio, Denoise, EncodePrompt, Refine
from aiprod_components.errors import CheckpointError
from aiprod_components.families import ltx2, make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import LocalStages, Silent
from aiprod_components.pipelines import parse_request
from aiprod_components.plan import Ref, fill
from aiprod_components.stages.ltx2.audio_decoder import LTX2AudioDecoder
from aiprod_components.stages.ltx2.flow import LTX2FlowStage
from aiprod_components.stages.ltx2.network import JointNetwork
from aiprod_components.stages.ltx2.text_encoder import LTX2TextEncoding
from aiprod_components.values import Latents, PromptEmbeds, Waveform
from tests.ltx2.conftest import FolderOf

CPU = torch.device("cpu")
SIZE = {"num_frames": 9, "height": 64, "width": 64, "seed": 5}


def network_of(stage: LTX2FlowStage) -> Any:
    """The transformer of a stage that is alone."""
    return cast(JointNetwork, stage._network)._transformer


class Bench:
    """The stages of a tiny 2.3, and the questions that their transformer was asked."""

    def __init__(self, family: LTX2Family) -> None:
        self.family = family
        self.stages = LocalStages(family, device=CPU)
        self.asked: list[dict[str, Any]] = []

    def flow(self, name: str) -> LTX2FlowStage:
        return cast(LTX2FlowStage, self.stages[name])

    def listen(self, name: str) -> None:
        transformer = network_of(self.flow(name))
        forward = transformer.forward

        def told(*args: Any, **asked: Any) -> Any:
            self.asked.append(asked)
            return forward(*args, **asked)

        transformer.forward = told

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        plan = parse_request({**SIZE, "prompt": "rain on a roof", **request}, family=self.family).plan(self.family)
        results: dict[str, Any] = {}
        for step in plan.steps:
            results[step.name] = self.stages[step.call.stage].run(fill(step.call, results), Silent())
        return results


@pytest.fixture
def bench(folder_of: FolderOf) -> Callable[..., Bench]:
    def made(**options: Any) -> Bench:
        folder = folder_of("2.3")
        given: dict[str, Any] = {"weights": str(folder), "loras": str(folder.parent / "loras"), "precision": "float32", **options}
        family = make_family("ltx2", **given)
        return Bench(cast(LTX2Family, family))

    return made


@cache
def prompt_of(stage: LTX2TextEncoding, negative: str | None) -> PromptEmbeds:
    return stage.run(EncodePrompt("rain on a roof", negative), Silent())


def test_the_states_of_all_layers_never_leave_the_text_stage(bench: Callable[..., Bench]) -> None:
    family = bench().family
    prompt = prompt_of(LTX2TextEncoding(family, device=CPU), "blur")
    config = family.config("connectors")
    assert prompt.embeds.shape == (1, 1024, config["video_hidden_dim"]) and prompt.audio_embeds is not None
    assert prompt.audio_embeds.shape == (1, 1024, config["audio_hidden_dim"])


def test_a_prompt_beside_another_has_other_last_bits_than_alone_so_stage_2_reads_it_alone(bench: Callable[..., Bench]) -> None:
    family = bench().family
    plan = parse_request({**SIZE, "height": 128, "width": 128, "prompt": "rain"}, family=family).plan(family)
    calls = {step.name: step.call for step in plan.steps}
    assert cast(EncodePrompt, calls["prompt"]).negative_prompt == "" and cast(EncodePrompt, calls["prompt_alone"]).negative_prompt is None
    assert cast(Refine, calls["refined"]).prompt_embeds == Ref("prompt_alone")
    assert cast(Denoise, calls["draft"]).prompt_embeds == Ref("prompt")


def test_stage_2_draws_on_where_stage_1_stopped(bench: Callable[..., Bench]) -> None:
    """Seeded anew, it would put the same numbers over the draft as it came from."""
    here = bench(variant="distilled")
    results = here.run({"pipeline": "distilled", "height": 128})
    doubled: Latents = results["doubled"]
    call = refinement(here, results)
    assert doubled.noise_state is not None
    handed_on = here.flow("refiner").start(call)
    anew = here.flow("refiner").start(replace(call, latents=replace(doubled, noise_state=None)))
    assert not torch.equal(handed_on.pictures.x, anew.pictures.x) and not torch.equal(handed_on.sound.x, anew.sound.x)


def refinement(here: Bench, results: dict[str, Any]) -> Refine:
    request = {**SIZE, "prompt": "rain on a roof", "pipeline": "distilled", "height": 128}
    plan = parse_request(request, family=here.family).plan(here.family)
    return cast(Refine, fill(next(step.call for step in plan.steps if step.name == "refined"), results))


def test_eight_distilled_steps_ask_the_network_eight_times(bench: Callable[..., Bench]) -> None:
    here = bench(variant="distilled")
    here.listen("denoiser")
    here.listen("refiner")
    here.run({"pipeline": "distilled", "height": 128})
    assert len(here.asked) == 8 + 3
    assert {asked["hidden_states"].shape[0] for asked in here.asked} == {1}
    assert not any(asked["isolate_modalities"] or asked["spatio_temporal_guidance_blocks"] for asked in here.asked)


def test_a_guided_step_asks_three_times_for_four_passes(bench: Callable[..., Bench]) -> None:
    here = bench()
    here.listen("denoiser")
    here.run({"pipeline": "ti2vid_one_stage", "num_inference_steps": 2})
    assert [asked["hidden_states"].shape[0] for asked in here.asked] == [2, 1, 1] * 2
    assert [asked["isolate_modalities"] for asked in here.asked] == [False, False, True] * 2
    assert [bool(asked["spatio_temporal_guidance_blocks"]) for asked in here.asked] == [False, True, False] * 2


def test_a_sound_scale_of_zero_is_zero_and_not_that_of_the_pictures(bench: Callable[..., Bench]) -> None:
    here, asked = bench(), {"pipeline": "ti2vid_one_stage", "num_inference_steps": 1}
    sound = {"scale": 7, "modality_scale": 3, "rescale": 0.7}
    without = here.run({**asked, "audio_guidance": {**sound, "skip_scale": 0.0}})["draft"]
    weakly = here.run({**asked, "audio_guidance": {**sound, "skip_scale": 1e-9}})["draft"]
    as_pictures = here.run({**asked, "audio_guidance": {**sound, "skip_scale": 1.0}})["draft"]
    assert torch.allclose(without.audio, weakly.audio, atol=1e-5)
    assert not torch.allclose(without.audio, as_pictures.audio, atol=1e-3)


def test_noise_levels_that_are_given_are_not_shifted_again(bench: Callable[..., Bench]) -> None:
    here = bench(variant="distilled")
    here.listen("denoiser")
    here.run({"pipeline": "distilled", "height": 128})
    assert [float(asked["sigma"][0]) for asked in here.asked] == pytest.approx(
        [1000.0, 993.75, 987.5, 981.25, 975.0, 909.375, 725.0, 421.875], rel=1e-6
    )


def test_the_vocoder_computes_in_float32_whatever_the_rest_does(bench: Callable[..., Bench]) -> None:
    decoder = LTX2AudioDecoder(bench(precision="bfloat16").family, device=CPU)
    assert decoder._vae.dtype == torch.bfloat16 and decoder._vocoder.dtype == torch.float32


def test_sound_is_as_long_as_the_pictures_in_the_file(bench: Callable[..., Bench]) -> None:
    """What is decoded is 30 ms short."""
    results = bench(variant="distilled").run(
        {"pipeline": "ti2vid_one_stage", "sigmas": (1.0, 0.5, 0.0), "num_frames": 25, "frame_rate": 24}
    )
    sound, video = results["sound"], results["video"]
    assert sound.samples.shape[2] < round(25 / 24 * sound.sample_rate)
    assert sound_seconds(video.data) == pytest.approx(25 / 24, abs=1e-3)


def sound_seconds(data: bytes) -> float:
    with av.open(io.BytesIO(data)) as container:
        (track,) = container.streams.audio
        assert track.codec_context.name == "aac" and track.duration is not None and track.time_base is not None
        return float(track.duration * track.time_base)


def test_the_refiner_has_its_lora_in_its_weights_and_the_denoiser_only_beside_them(bench: Callable[..., Bench]) -> None:
    here = bench()
    refiner, denoiser = network_of(here.flow("refiner")), network_of(here.flow("denoiser"))
    plain = here.family.load("transformer").state_dict()
    fused = refiner.state_dict()
    assert fused.keys() == plain.keys() and any(not torch.equal(fused[key], plain[key]) for key in plain)
    here.run({"pipeline": "distilled", "height": 128})
    worn = {name: tensor for name, tensor in denoiser.state_dict().items() if "base_layer" in name}
    assert worn and all(torch.equal(tensor, plain[name.replace(".base_layer", "")]) for name, tensor in worn.items())


def test_a_lora_that_was_worn_leaves_no_trace(bench: Callable[..., Bench]) -> None:
    here, asked = bench(), {"pipeline": "ti2vid_one_stage", "num_inference_steps": 1}
    before = here.run(asked)["draft"]
    worn = here.run({**asked, "loras": [{"name": "dolly", "scale": 1.0}]})["draft"]
    after = here.run(asked)["draft"]
    assert not torch.allclose(before.video, worn.video, atol=1e-3)
    assert torch.equal(before.video, after.video) and torch.equal(before.audio, after.audio)


@pytest.mark.parametrize("package", ["diffusers", "peft", "accelerate"])
def test_without_its_packages_the_family_says_how_to_get_them(package: str, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ltx2, "is_installed", lambda name: name != package)
    with pytest.raises(CheckpointError, match=rf"family ltx2 needs {package}; install it with: pip install 'aiprod\[ltx2\]'"):
        make_family("ltx2", weights=str(folder_of("2.3")))


def test_requests_of_one_shape_ride_in_one_batch(bench: Callable[..., Bench]) -> None:
    here = bench()
    flow, encode = here.flow("denoiser"), cast(LTX2TextEncoding, here.stages["text_encoder"])
    plan = parse_request({**SIZE, "prompt": "rain on a roof", "pipeline": "ti2vid_one_stage", "num_inference_steps": 2}, family=here.family)
    call = cast(Denoise, plan.plan(here.family).steps[1].call)
    calls = [replace(call, prompt_embeds=prompt_of(encode, ""), sampling=replace(call.sampling, seed=seed)) for seed in (1, 2, 3)]
    alone = [cast(Latents, flow.run(each, Silent())) for each in calls]
    here.listen("denoiser")
    states = [flow.start(each) for each in calls]
    while states[0].done < states[0].total:
        states = flow.step(states)
    together = [cast(Latents, flow.finish(state)) for state in states]
    assert [asked["hidden_states"].shape[0] for asked in here.asked] == [6, 3, 3] * 2
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.video, other.video, atol=1e-4) and torch.allclose(
            cast(torch.Tensor, one.audio), cast(torch.Tensor, other.audio), atol=1e-4
        )


def test_clips_that_follow_each_other_are_heard_once_where_they_overlap(bench: Callable[..., Bench]) -> None:
    here = bench(variant="distilled")
    draft: Latents = here.run({"pipeline": "ti2vid_one_stage", "sigmas": (1.0, 0.5, 0.0), "num_frames": 17})["draft"]
    decoder = cast(LTX2AudioDecoder, here.stages["audio_decoder"])
    video = parse_request({**SIZE, "prompt": "rain", "num_frames": 25}, family=here.family).video
    whole = cast(Waveform, decoder.run(DecodeAudio((draft, draft), video, heard=(0, 9)), Silent()))
    assert draft.audio is not None
    at_once = replace(draft, audio=torch.cat([draft.audio, draft.audio[:, :, 9:]], dim=2))
    again = cast(Waveform, decoder.run(DecodeAudio((at_once,), video), Silent()))
    assert torch.equal(whole.samples, again.samples)
