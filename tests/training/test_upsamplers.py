"""Every upsampler trains from two caches of the same scenes, which are found under the names they had."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from aiprod_components.families import make_family
from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import load_model
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.training.dataset import FIRST_HELD_OUT_SEED, clips_of, scenes_of
from aiprod_components.training.latent_cache import ClipSet
from aiprod_components.training.objectives import COMPONENTS
from aiprod_components.training.quality import psnr
from aiprod_components.training.trainer import Trainer

RECIPES = Path(__file__).parents[2] / "aiprod_components" / "training" / "recipes"
# Sides of latents: 2 -> 3, 4 -> 3, 1 -> 4; three latent frames, as two train on garbage in bfloat16 (docs/decisions.md, 24).
SMALL: dict[str, dict[str, Any]] = {
    "temporal_upsampler": {"low": (32, 9, 16), "high": (32, 17, 32)},
    "upsampler_3_2": {"low": (32, 9, 16), "high": (48, 9, 16)},
    "upsampler_3_4": {"low": (64, 9, 16), "high": (48, 9, 16)},
    "upsampler_4_1": {"low": (16, 9, 16), "high": (64, 9, 16)},
}


def record_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_an_upsampler_trains_and_writes_weights_that_load(name: str, tmp_path: Path):
    record = record_of(name)
    for part, (size, num_frames, frame_rate) in SMALL[name].items():
        record[part] = {"size": size, "num_frames": num_frames, "count": 3, "frame_rate": frame_rate}
    record |= {"cache": str(tmp_path / "cache"), "batch": 2, "schedule": {**record["schedule"], "steps": 2}}
    for suffix in ("json", "safetensors"):
        shutil.copy(SHIPPED_WEIGHTS / f"vae.{suffix}", tmp_path)
    recipe_class, objective_class = COMPONENTS[name]
    recipe = recipe_class.model_validate(record)
    objective = objective_class(recipe, output=tmp_path)
    before = objective.model.leave.weight.detach().clone()
    Trainer(objective, recipe, folder=tmp_path / "run").run()
    trained = load_model(LatentUpsampler, UpsamplerConfig, tmp_path / name)
    assert not torch.equal(trained.leave.weight, before)
    assert trained(objective.low.latents[:1].float()).shape == objective.high.latents[:1].shape


@pytest.mark.parametrize("name", SMALL)
def test_the_model_leads_from_the_low_clips_to_the_high_ones_or_the_recipe_is_refused(name: str):
    record = record_of(name)
    recipe_class, _ = COMPONENTS[name]
    recipe_class.model_validate(record)
    with pytest.raises(ValueError, match="change high"):
        recipe_class.model_validate({**record, "high": {**record["high"], "size": 16}})
    with pytest.raises(ValueError, match="equally long"):
        recipe_class.model_validate({**record, "low": {**record["low"], "frame_rate": 15}})


def test_a_cache_is_named_as_ever_and_another_frame_rate_is_another_cache():
    assert ClipSet(64, 33, 8000, SceneMix()).name == "latents_64x33x8000"
    assert ClipSet(64, 65, 2000, SceneMix(), frame_rate=32.0).name == "latents_64x65@32x2000"
    assert ClipSet(64, 33, 100, SceneMix(), "canny").name == "canny_64x33x100"


@pytest.mark.parametrize(("name", "small", "side"), [("upsampler_3_2", 64, 96), ("upsampler_3_4", 64, 48), ("upsampler_4_1", 32, 128)])
def test_the_shipped_resamplers_show_the_clip_at_its_new_size(name: str, small: int, side: int):
    family, seed = make_family("miniature"), FIRST_HELD_OUT_SEED
    vae, network = cast(VideoVAE, family.load("vae")), family.load(name)
    low, high = (to_unit(clips_of(scenes_of([seed], mix=SceneMix()), num_frames=17, size=size)) for size in (small, side))
    with torch.inference_mode():
        shown = vae.decode(network(vae.encode(low)))
    assert shown.shape == high.shape
    assert psnr(shown, high) > 30
