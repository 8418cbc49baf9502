"""Every family builds, at the size that the documents give."""

import json
import shutil

import pytest
import torch

from aiprod_components.errors import CheckpointError, UnknownModelError
from aiprod_components.families import make_family
from aiprod_components.families.aiprod import BACKBONE
from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.models.backbone import BackboneConfig, HybridBackbone


def parameters_on_paper(config: BackboneConfig) -> int:
    """The count worked out in docs/parameters.md, term by term."""
    w, c, e, head = config.width, config.latent_channels, config.text_width, config.width // config.heads
    feed_forward = (w * 4 * w + 4 * w) + (4 * w * w + w)
    table = 6 * w
    self_attention = (3 * w * w + 3 * w) + (w * w + w) + 2 * head
    cross_attention = 2 * w + (w * w + w) + (2 * w * w + 2 * w) + (w * w + w) + 2 * head
    attention_block = table + self_attention + cross_attention + feed_forward
    convolution_block = table + (27 * w * w + w) + feed_forward
    time = (128 * w + w) + (w * w + w) + (3 * 128 * w + w) + (w * w + w) + (6 * w * w + 6 * w)
    ends = (e * w + w) + (c * w + w) + (2 * w * w + 2 * w) + (w * c + c)
    return config.attention_blocks * attention_block + config.convolution_blocks * convolution_block + time + ends


def test_aiprod_has_the_blocks_and_the_parameters_that_were_worked_out_on_paper():
    with torch.device("meta"):
        backbone = HybridBackbone(BACKBONE)
    counted = sum(parameter.numel() for parameter in backbone.parameters())
    assert (BACKBONE.attention_blocks, BACKBONE.convolution_blocks, BACKBONE.width, BACKBONE.heads) == (30, 18, 768, 12)
    assert counted == parameters_on_paper(BACKBONE) == 662_254_336


@pytest.mark.parametrize("component", ["text_encoder", "vae", "denoiser", "upsampler", "refiner"])
def test_every_component_of_aiprod_builds_on_the_meta_device(component: str):
    part = make_family("aiprod", weights="random").components[component]
    with torch.device("meta"):
        model = part.model(part.config)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000


@pytest.mark.parametrize("component", ["text_encoder", "vae", "denoiser", "upsampler", "refiner"])
def test_every_component_of_the_miniature_loads_from_the_shipped_weights(component: str):
    model = make_family("miniature").load(component)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_every_familys_grid_is_that_of_its_vae():
    for name in ("miniature", "aiprod"):
        family = make_family(name, weights="random" if name == "aiprod" else None)
        if family.weights is None:
            channels = family.components["vae"].config.latent_channels
        else:
            channels = json.loads((family.weights / "vae.json").read_text())["config"]["latent_channels"]
        assert family.grid.channels == channels


def test_an_unknown_family_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(UnknownModelError, match="miniature, aiprod"):
        make_family("sora")


def test_aiprod_never_serves_random_weights_by_accident():
    with pytest.raises(CheckpointError, match="name a folder"):
        make_family("aiprod")


def test_a_missing_weights_folder_names_the_file_and_the_way_out(tmp_path):
    with pytest.raises(CheckpointError, match=r"vae\.safetensors does not exist; train it"):
        make_family("miniature", weights=str(tmp_path)).load("vae")


def test_weights_that_are_cut_or_of_another_model_name_the_file(tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(SHIPPED_WEIGHTS, folder)
    whole = (folder / "upsampler.safetensors").read_bytes()
    (folder / "upsampler.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(CheckpointError, match=r"upsampler\.safetensors is not a whole safetensors file .* copy it again"):
        make_family("miniature", weights=str(folder)).load("upsampler")
    shutil.copy(folder / "upsampler.json", folder / "vae.json")
    with pytest.raises(CheckpointError, match=r"vae\.json describes a LatentUpsampler, not a VideoVAE"):
        make_family("miniature", weights=str(folder)).load("vae")
    (folder / "denoiser.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"denoiser\.json is not a description of a HybridBackbone"):
        make_family("miniature", weights=str(folder)).load("denoiser")
