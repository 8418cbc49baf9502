"""a LoRA in each naming that there is -> the same answer of the transformer, bit for bit; or refused, with what would do"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from safetensors.torch import save_file
from torch import Tensor

from aiprod_components.calls import LoraUse
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.ltx2_loras import factors_of
from aiprod_components.stages.ltx2.network import JointNetwork
from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import LORA_STRENGTH, VERSIONS, seeded, sized
from tests.ltx2.test_fitting import answers

RANK = 4
# A layer in diffusers' names -> in LTX-2's own.
LAYERS = {
    "proj_in": "patchify_proj",
    "audio_proj_in": "audio_patchify_proj",
    "time_embed.linear": "adaln_single.linear",
    "audio_time_embed.linear": "audio_adaln_single.linear",
    "prompt_adaln.linear": "prompt_adaln_single.linear",
    "audio_prompt_adaln.linear": "audio_prompt_adaln_single.linear",
    "av_cross_attn_video_scale_shift.linear": "av_ca_video_scale_shift_adaln_single.linear",
    "av_cross_attn_audio_v2a_gate.linear": "av_ca_v2a_gate_adaln_single.linear",
    "transformer_blocks.0.attn1.to_q": "transformer_blocks.0.attn1.to_q",
    "transformer_blocks.1.ff.net.0.proj": "transformer_blocks.1.ff.net.0.proj",
    "transformer_blocks.1.audio_to_video_attn.to_out.0": "transformer_blocks.1.audio_to_video_attn.to_out.0",
}
OF_THE_TEXT = "text_embedding_projection.aggregate_embed"
Factors = dict[str, tuple[Tensor, Tensor]]
Tensors = dict[str, Tensor]


def named(factors: Factors, *, prefix: str, down: str = "lora_A", up: str = "lora_B", own: bool = False) -> Tensors:
    return {
        f"{prefix}{LAYERS[layer] if own else layer}.{kind}.weight": factor
        for layer, pair in factors.items()
        for kind, factor in zip((down, up), pair, strict=True)
    }


def with_alphas(factors: Factors, alpha: float) -> Tensors:
    """As kohya's trainers write them; alpha / rank is what `up` would be multiplied by."""
    scaled = {layer: (down, up * RANK / alpha) for layer, (down, up) in factors.items()}
    alphas = {f"diffusion_model.{LAYERS[layer]}.alpha": torch.tensor(alpha) for layer in factors}
    return alphas | named(scaled, prefix="diffusion_model.", down="lora_down", up="lora_up", own=True)


def beside_the_text(factors: Factors) -> Tensors:
    text = {f"{OF_THE_TEXT}.lora_A.weight": torch.ones(RANK, 8), f"{OF_THE_TEXT}.lora_B.weight": torch.ones(8, RANK)}
    return text | named(factors, prefix="diffusion_model.", own=True)


NAMINGS: dict[str, Callable[[Factors], Tensors]] = {
    "diffusers": lambda factors: named(factors, prefix="transformer."),
    "diffusers-before-peft": lambda factors: named(factors, prefix="transformer.", down="lora.down", up="lora.up"),
    "own": lambda factors: named(factors, prefix="diffusion_model.", own=True),
    "own-with-the-text": beside_the_text,
    "own-downs-and-ups": lambda factors: named(factors, prefix="diffusion_model.", down="lora_down", up="lora_up", own=True),
    "own-alpha-of-the-rank": lambda factors: with_alphas(factors, RANK),
    "own-alpha-of-half-the-rank": lambda factors: with_alphas(factors, RANK / 2),
    "peft": lambda factors: named(factors, prefix="base_model.model.", down="lora_A.default", up="lora_B.default"),
    "no-prefix": lambda factors: named(factors, prefix=""),
}


def family_of(folder: Path, loras: Path) -> LTX2Family:
    return cast(LTX2Family, make_family("ltx2", weights=str(folder), loras=str(loras), precision="float32"))


def factors_for(folder: Path) -> Factors:
    transformer: Any = LTX2VideoTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    generator, layers = seeded("names"), {name: transformer.get_submodule(name) for name in LAYERS}
    return {
        name: (sized((RANK, layer.in_features), generator), LORA_STRENGTH * sized((layer.out_features, RANK), generator))
        for name, layer in layers.items()
    }


def worn(network: JointNetwork, name: str) -> list[Tensor]:
    network.use_loras((LoraUse(name, 1.0),))
    return answers(network._transformer, dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_whatever_its_layers_are_called_a_lora_does_the_same(folder_of: FolderOf, tmp_path: Path):
    factors = factors_for(folder_of("2.3"))
    for name, write in NAMINGS.items():
        save_file(write(factors), tmp_path / f"{name}.safetensors")
    family = family_of(folder_of("2.3"), tmp_path)
    assert {name: family.loras[name].fault for name in NAMINGS} == dict.fromkeys(NAMINGS)
    network = JointNetwork(family, "transformer", device=torch.device("cpu"))
    without, first = answers(network._transformer, dtype=torch.float32), worn(network, "diffusers")
    assert all(not torch.equal(one, other) for one, other in zip(without, first, strict=True))
    for name in NAMINGS:
        assert all(map(torch.equal, worn(network, name), first)), name


@pytest.mark.parametrize("name", ["diffusers", "own"])
def test_it_is_what_diffusers_pipeline_makes_of_the_file(name: str, folder_of: FolderOf, tmp_path: Path):
    save_file(NAMINGS[name](factors_for(folder_of("2.3"))), tmp_path / "style.safetensors")
    network = JointNetwork(family_of(folder_of("2.3"), tmp_path), "transformer", device=torch.device("cpu"))
    pipe: Any = LTX2Pipeline.from_pretrained(folder_of("2.3"))
    # Copied: where factors lie in a file's memory decides on the last bits.
    pipe.load_lora_weights(str(tmp_path), weight_name="style.safetensors", low_cpu_mem_usage=False)
    assert all(map(torch.equal, worn(network, "style"), answers(pipe.transformer, dtype=torch.float32)))


def test_an_alpha_that_peft_says_counts(folder_of: FolderOf, tmp_path: Path):
    """In a header, as diffusers writes it, or in the file beside: the LoRA does as much less."""
    factors = factors_for(folder_of("2.3"))
    tensors = named(factors, prefix="transformer.")
    half = named({layer: (down, up / 2) for layer, (down, up) in factors.items()}, prefix="transformer.")
    save_file(tensors, tmp_path / "beside.safetensors")
    (tmp_path / "beside.json").write_text(json.dumps({"lora_alpha": RANK / 2}))
    save_file(tensors, tmp_path / "header.safetensors", {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": RANK / 2})})
    for name in ("beside", "header"):
        made = factors_of(tmp_path / f"{name}.safetensors")
        assert made.keys() == half.keys() and all(torch.equal(made[key], half[key]) for key in half)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lora_unet_transformer_blocks_0_attn1_to_q", "save it with the network's own names, like transformer_blocks."),
        ("diffusion_model.video_embeddings_connector.learned", "changes video_embeddings_connector.learned, which this network has not"),
        (OF_THE_TEXT, "changes the projection of the text alone"),
        ("transformer.proj_in.of", "changes proj_in.of, which this network has not"),
    ],
)
def test_what_is_called_otherwise_is_refused_with_what_would_do(name: str, reason: str, folder_of: FolderOf, tmp_path: Path):
    tensors = {f"{name}.lora_down.weight": torch.ones(RANK, 64), f"{name}.lora_up.weight": torch.ones(64, RANK)}
    save_file(tensors, tmp_path / "theirs.safetensors")
    with pytest.raises(InvalidRequestError, match="does not belong to ltx2") as caught:
        family_of(folder_of("2.3"), tmp_path).lora("theirs")
    assert reason in caught.value.message and str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("version", VERSIONS)
def test_no_layer_is_called_otherwise_in_diffusers_than_it_is(version: str, folder_of: FolderOf, tmp_path: Path):
    """So a file in diffusers' names comes through unchanged, whatever stands before them."""
    family = family_of(folder_of(version), tmp_path)
    layers = [layer for layer, shape in family._shapes_of_transformer().items() if len(shape) == 2]
    names = [f"{layer}.{kind}.weight" for layer in layers for kind in ("lora_A", "lora_B")]
    save_file({name: torch.ones(1, 1) for name in names}, tmp_path / "all.safetensors")
    assert factors_of(tmp_path / "all.safetensors").keys() == {f"transformer.{name}" for name in names}


def test_an_alpha_beside_a_lora_is_part_of_the_fingerprint(folder_of: FolderOf, tmp_path: Path):
    save_file(NAMINGS["diffusers"](factors_for(folder_of("2.3"))), tmp_path / "style.safetensors")
    before = family_of(folder_of("2.3"), tmp_path).fingerprint
    (tmp_path / "style.json").write_text(json.dumps({"lora_alpha": 2}))
    assert family_of(folder_of("2.3"), tmp_path).fingerprint != before
