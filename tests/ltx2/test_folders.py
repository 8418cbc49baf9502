"""a tiny checkpoint -> what each knob of diffusers' own pipelines does to the latents, the pictures and the sound"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.ltx2_diffusion_decoder import LTX2VideoDiffusionDecoderModel
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2ConditionPipeline, LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_diffusion_decode import LTX2VideoDiffusionDecodePipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_image2video import LTX2ImageToVideoPipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline
from diffusers.pipelines.ltx2.utils import resolve_default_image_crf
from PIL import Image
from torch import Tensor

from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import STG_BLOCKS, VERSIONS, make_folder, make_lora

pytestmark = pytest.mark.slow

HEARD = 1e-3  # relative: rounding is a thousand times smaller

Latents = tuple[Tensor, Tensor]
LoadedOf = Callable[[str], Any]
PlainOf = Callable[[str], Latents]

FULL_GUIDANCE: dict[str, object] = {
    "prompt": "a red fox runs through snow",
    "negative_prompt": "worst quality",
    "height": 64,
    "width": 64,
    "num_frames": 9,
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "stg_scale": 1.0,
    "modality_scale": 3.0,
    "guidance_rescale": 0.7,
    "audio_guidance_scale": 7.0,
    "audio_stg_scale": 1.0,
    "audio_modality_scale": 3.0,
    "audio_guidance_rescale": 0.7,
    "output_type": "latent",
}

CHANGES: dict[str, dict[str, object]] = {
    "another animal": {"prompt": "a red cat runs through snow"},
    "another script": {"prompt": "雪の中を走る赤い狐"},
    "another negative prompt": {"negative_prompt": "blurry"},
    "stronger guidance of the picture": {"guidance_scale": 4.0},
    "weaker guidance of the sound": {"audio_guidance_scale": 5.0},
    "half the weight against isolated modalities": {"modality_scale": 2.0},
    "and for the sound": {"audio_modality_scale": 2.0},
    "no rescaling": {"guidance_rescale": 0.0},
    "another frame rate": {"frame_rate": 25.0},
    "another speed of motion": {"motion_speed": 2.0},
    "more steps": {"num_inference_steps": 4},
}

STG_CHANGES: dict[str, dict[str, object]] = {"half the STG": {"stg_scale": 0.5}, "and for the sound": {"audio_stg_scale": 0.5}}

CONDITION: dict[Any, Callable[[Image.Image], dict[str, object]]] = {
    LTX2ImageToVideoPipeline: lambda image: {"image": image},
    LTX2ConditionPipeline: lambda image: {"conditions": LTX2VideoCondition(frames=image)},
}


@pytest.fixture(scope="session")
def loaded(folder_of: FolderOf) -> LoadedOf:
    return cache(lambda version: load(LTX2Pipeline, folder_of(version)))


@pytest.fixture(scope="session")
def plain(loaded: LoadedOf) -> PlainOf:
    """What comes of full guidance, four passes a step, with nothing changed."""
    return cache(lambda version: latents_of(loaded(version), version))


def load(pipeline: Any, folder: Path) -> Any:
    pipe = pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents_of(pipe: Any, version: str, **changes: object) -> Latents:
    output = generated(pipe, version, **changes)
    return output.frames, output.audio


def generated(pipe: Any, version: str, **changes: object) -> Any:
    call = FULL_GUIDANCE | {"spatio_temporal_guidance_blocks": STG_BLOCKS[version], "use_cross_timestep": version != "2.0"} | changes
    return pipe(**call, generator=torch.Generator().manual_seed(0))


def differences(changed: Latents, before: Latents) -> list[float]:
    """Relative, of the video and of the sound."""
    return [float((new - old).norm() / old.norm()) for new, old in zip(changed, before, strict=True)]


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64))


def config(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / part / "config.json").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_latents_have_the_real_geometry_and_about_the_size_of_noise(version: str, plain: PlainOf):
    video, audio = plain(version)
    assert video.shape == (1, 128, 2, 2, 2) and audio.shape == (1, 8, 9, 16)
    assert all(0.3 < float(latents.std()) < 4.0 for latents in (video, audio))


@pytest.mark.parametrize(("version", "rate"), [("2.0", 24_000), ("2.3", 48_000), ("2.5", 48_000)])
def test_pictures_and_sound_are_neither_dead_nor_clipped(version: str, rate: int, loaded: LoadedOf):
    output = generated(loaded(version), version, output_type="pt")
    assert output.frames.shape == (1, 9, 3, 64, 64) and output.audio.shape == (1, 2, 33 * rate // 100)  # 9 latents, less three mel frames
    assert output.frames.std() > 0.1 and float(((output.frames <= 0) | (output.frames >= 1)).float().mean()) < 0.3
    assert output.audio.std() > 0.03 and float((output.audio.abs() >= 1).float().mean()) < 0.1


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_knob_is_seen_and_heard(version: str, change: str, loaded: LoadedOf, plain: PlainOf):
    assert min(differences(latents_of(loaded(version), version, **CHANGES[change]), plain(version))) > HEARD


@pytest.mark.parametrize("change", STG_CHANGES)
@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_stg_is_seen_and_heard_since_2_3(version: str, change: str, loaded: LoadedOf, plain: PlainOf):
    assert min(differences(latents_of(loaded(version), version, **STG_CHANGES[change]), plain(version))) > HEARD


def test_stg_does_nothing_in_2_0_whose_attention_cannot_be_perturbed(loaded: LoadedOf, plain: PlainOf):
    assert max(differences(latents_of(loaded("2.0"), "2.0", stg_scale=0.5), plain("2.0"))) < 1e-4


@pytest.mark.parametrize("pipeline", CONDITION)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_conditioning_image_moves_the_frames_after_it_and_the_sound(version: str, pipeline: Any, folder_of: FolderOf):
    pipe = load(pipeline, folder_of(version))
    one, other = (latents_of(pipe, version, **CONDITION[pipeline](picture(seed))) for seed in (1, 2))
    assert min(differences((other[0][:, :, 1:], other[1]), (one[0][:, :, 1:], one[1]))) > HEARD


@pytest.mark.parametrize("version", VERSIONS)
def test_the_other_modalitys_sigma_matters_where_an_image_holds_the_first_frame(version: str, folder_of: FolderOf):
    pipe = load(LTX2ImageToVideoPipeline, folder_of(version))
    new, old = (latents_of(pipe, version, image=picture(1), use_cross_timestep=crossed) for crossed in (True, False))
    assert min(differences(new, old)) > HEARD


@pytest.mark.parametrize("version", VERSIONS)
def test_the_lora_loads_under_its_own_names_and_fuses_to_the_same(version: str, folder_of: FolderOf, plain: PlainOf, tmp_path: Path):
    lora = make_lora(tmp_path / "distilled.safetensors", folder_of(version))
    pipe = load(LTX2Pipeline, folder_of(version))
    pipe.load_lora_weights(str(lora))
    with_lora = latents_of(pipe, version)
    assert min(differences(with_lora, plain(version))) > HEARD
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert max(differences(latents_of(pipe, version), with_lora)) < 1e-3


@pytest.mark.parametrize(("statistic", "nothing"), [("latents_mean", 0.0), ("latents_std", 1.0)])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_statistics_of_the_latents_are_missed(version: str, statistic: str, nothing: float, folder_of: FolderOf, plain: PlainOf):
    pipe = load(LTX2Pipeline, folder_of(version))
    for vae in (pipe.vae, pipe.audio_vae):
        getattr(vae, statistic).fill_(nothing)
    assert min(differences(latents_of(pipe, version), plain(version))) > 0.1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_upsampler_doubles_the_grid(version: str, folder_of: FolderOf, loaded: LoadedOf, plain: PlainOf):
    upsampler = LTX2LatentUpsamplerModel.from_pretrained(folder_of(version), subfolder="latent_upsampler")
    pipe: Any = LTX2LatentUpsamplePipeline(vae=loaded(version).vae, latent_upsampler=upsampler)
    large = pipe(latents=plain(version)[0], height=64, width=64, num_frames=9, output_type="latent").frames
    assert large.shape == (1, 128, 2, 4, 4) and 0.1 < float(large.std()) < 4.0


def test_2_5_predicts_a_length_on_the_grid(loaded: LoadedOf):
    video, _ = latents_of(loaded("2.5"), "2.5", num_frames=None, max_seconds=2.0)
    other, _ = latents_of(loaded("2.5"), "2.5", num_frames=None, max_seconds=0.5, min_seconds=0.3)
    assert 1 < other.shape[2] < video.shape[2] <= 6
    assert loaded("2.0").duration_head is None and loaded("2.3").duration_head is None


def test_2_5_comes_distilled_with_another_transformer_beside_it(folder_of: FolderOf, loaded: LoadedOf, plain: PlainOf):
    pipe = load(LTX2Pipeline, folder_of("2.5"))
    pipe.transformer = LTX2VideoTransformer3DModel.from_pretrained(folder_of("2.5"), subfolder="transformer_full")
    assert min(differences(latents_of(pipe, "2.5"), plain("2.5"))) > 0.1
    shifts = {version: loaded(version).scheduler.config for version in VERSIONS}
    assert [shifts[version].use_dynamic_shifting for version in VERSIONS] == [True, True, False]
    assert [shifts[version].shift_terminal for version in VERSIONS] == [0.1, 0.1, None]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_2_5_brings_an_upsampler_of_time_and_a_decoder_that_draws_noise(folder_of: FolderOf, loaded: LoadedOf, plain: PlainOf):
    latents = plain("2.5")[0]
    upsampler: Any = LTX2LatentUpsamplerModel.from_pretrained(folder_of("2.5"), subfolder="temporal_latent_upsampler")
    assert upsampler(latents).shape == (1, 128, 3, 2, 2)
    decoder: Any = LTX2VideoDiffusionDecoderModel.from_pretrained(folder_of("2.5"), subfolder="diffusion_decoder")
    assert torch.equal(decoder.latents_mean, loaded("2.5").vae.latents_mean)
    pipe: Any = LTX2VideoDiffusionDecodePipeline(diffusion_decoder=decoder, scheduler=loaded("2.5").scheduler)
    one, other = (
        pipe(latents, generator=torch.Generator().manual_seed(seed), output_type="pt", denormalize=False).frames for seed in (0, 1)
    )
    assert one.shape == (1, 9, 3, 64, 64) and float((one - other).abs().mean()) > HEARD


@pytest.mark.parametrize(("version", "crf"), [("2.0", 33), ("2.3", 33), ("2.5", 18)])
def test_the_text_encoder_says_how_hard_images_are_compressed(version: str, crf: int, loaded: LoadedOf):
    assert resolve_default_image_crf(loaded(version).text_encoder) == crf


@pytest.mark.parametrize("version", VERSIONS)
def test_the_tokenizer_pads_on_the_left_up_to_a_multiple_of_the_registers(version: str, folder_of: FolderOf, loaded: LoadedOf):
    tokenizer = loaded(version).tokenizer
    padded = tokenizer("狐", padding="max_length", max_length=tokenizer.model_max_length)
    assert padded.attention_mask[-4:] == [1, 1, 1, 1] and sum(padded.attention_mask) == 4  # <bos> and three bytes
    assert tokenizer.decode(padded.input_ids, skip_special_tokens=True) == "狐"
    assert tokenizer.model_max_length % config(folder_of(version), "connectors")["video_connector_num_learnable_registers"] == 0


def test_configs_tell_the_versions_apart(folder_of: FolderOf):
    keys = {"transformer": ["gated_attn", "use_prompt_embeddings", "ff_bias"], "connectors": ["per_modality_projections"]}
    told = {version: [config(folder_of(version), part)[key] for part in keys for key in keys[part]] for version in VERSIONS}
    assert told == {"2.0": [False, True, True, False], "2.3": [True, False, True, True], "2.5": [True, False, False, True]}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_is_small(version: str, folder_of: FolderOf):
    assert sum(file.stat().st_size for file in folder_of(version).rglob("*")) < 40_000_000


def test_the_same_seed_writes_the_same_bytes_and_leaves_torchs_state_alone(folder_of: FolderOf, tmp_path: Path):
    state = torch.get_rng_state()
    again, other = make_folder(tmp_path / "again", "2.3"), make_folder(tmp_path / "other", "2.3", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert digests(again) == digests(folder_of("2.3"))
    changed = {name for name, digest in digests(other).items() if digest != digests(again)[name]}
    assert changed == {name for name in digests(again) if name.endswith(".safetensors")}


def digests(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
