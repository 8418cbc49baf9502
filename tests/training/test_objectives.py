"""Every recipe really trains: a few steps at toy size, then weights that load."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from einops import rearrange

from aiprod_components.families.miniature import SHIPPED_WEIGHTS, make_miniature
from aiprod_components.miniature.world import BACKGROUNDS, SceneMix
from aiprod_components.models.backbone import Context, Tokens
from aiprod_components.models.lora import read_lora
from aiprod_components.training.dataset import scenes_of
from aiprod_components.training.objectives import COMPONENTS
from aiprod_components.training.objectives.distillation import DistillationObjective
from aiprod_components.training.objectives.flow import FlowObjective
from aiprod_components.training.trainer import Trainer
from aiprod_components.training.trajectories import TrajectorySet
from aiprod_components.values import VideoShape

RECIPES = Path(__file__).parents[2] / "aiprod_components" / "training" / "recipes"
# Three latent frames: with two, oneDNN's bfloat16 gradient of a padded 3x3x3 kernel is garbage (docs/decisions.md, 24).
SMALL_CLIPS = [{"size": 32, "num_frames": 9, "count": 4, "batch": 3, "weight": 1}]
SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {"batch": 6, "pass_size": 3},
    "vae": {"clips": [{"batch": 2, "num_frames": 5, "size": 32, "weight": 1, "final_weight": 1}], "statistics_clips": 8},
    "vae_motion": {"clips": [{"batch": 2, "num_frames": 5, "size": 64, "crop": 32, "weight": 1, "final_weight": 1}], "statistics_clips": 8},
    "vae_decoder": {"clips": [{"batch": 2, "num_frames": 5, "size": 32, "weight": 1, "final_weight": 1}]},
    "denoiser": {"clips": SMALL_CLIPS},
    "refiner": {"clips": [{**SMALL_CLIPS[0], "half": 4}], "drafts": {"blur": 0.0, "lowest": 0.25, "highest": 0.75}},
    "upsampler": {"half_size": 32, "half_count": 4, "full_count": 4, "num_frames": 9, "batch": 2},
}


LORAS: dict[str, dict[str, Any]] = {
    "canny": {"clips": SMALL_CLIPS},
    "distilled": {"size": 32, "num_frames": 9, "count": 6, "held_out": 2, "batch": 2, "student_steps": 2, "pace": 2},
}


def small_recipe(name: str, *, cache: Path) -> Any:
    record = {**yaml.safe_load((RECIPES / f"{name}.yaml").read_text()), **{**SMALL, **LORAS}[name]}
    record["schedule"] = {**record["schedule"], "steps": 2}
    if "cache" in record:
        record["cache"] = str(cache)
    recipe_class, objective_class = COMPONENTS[record["component"]]
    return recipe_class.model_validate(record), objective_class


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_WEIGHTS, tmp_path / "weights"))


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_trains_and_writes_weights_that_load(name: str, weights: Path, tmp_path: Path):
    recipe, objective_class = small_recipe(name, cache=tmp_path / "cache")
    target = weights / f"{recipe.component}.safetensors"
    before = target.read_bytes()
    Trainer(objective_class(recipe, output=weights), recipe, folder=tmp_path / "run").run()
    assert target.read_bytes() != before
    assert make_miniature(weights=str(weights)).load(recipe.component) is not None


def test_which_trajectories_are_pinned_has_nothing_to_do_with_their_scenes():
    wanted = TrajectorySet(400, VideoShape(9, 32, 32, 16.0), SceneMix(), 2, 2, english_share=1.0, pinned_share=0.5)
    pinned = {row for row in range(400) if wanted.pinned(row)}
    backgrounds = [scene.background for scene in scenes_of(range(400), mix=SceneMix())]
    for name in BACKGROUNDS:
        rows = {row for row, background in enumerate(backgrounds) if background == name}
        assert 0.3 < len(rows & pinned) / len(rows) < 0.7


def test_a_smaller_reference_covers_the_same_view(weights: Path, tmp_path: Path):
    recipe, _ = small_recipe("canny", cache=tmp_path / "cache")
    smaller = recipe.model_copy(update={"control": recipe.control.model_copy(update={"downscale": 2})})
    whole, half = (FlowObjective(each, output=weights) for each in (recipe, smaller))
    batch = whole.source.draw(random.Random(0))
    full, small = whole._reference(batch), half._reference(batch)
    assert full is not None and small is not None
    assert (full.values.shape[1], small.values.shape[1]) == (3 * 4, 3 * 1)
    assert full.positions[0, :4, 1:].mean(dim=0).tolist() == small.positions[0, :1, 1:].mean(dim=0).tolist() == [16.0, 16.0]
    half.finish(half.model)
    assert make_miniature(weights=str(weights)).loras["canny"].downscale == 2


@pytest.mark.parametrize("name", LORAS)
def test_a_lora_is_trained_on_top_of_a_network_that_stays_as_it_was(name: str, weights: Path, tmp_path: Path):
    shutil.rmtree(weights / "loras", ignore_errors=True)
    recipe, objective_class = small_recipe(name, cache=tmp_path / "cache")
    own = (weights / "denoiser.safetensors").read_bytes()
    Trainer(objective_class(recipe, output=weights), recipe, folder=tmp_path / "run").run()
    assert (weights / "denoiser.safetensors").read_bytes() == own
    file = make_miniature(weights=str(weights)).loras[name]
    assert (file.fault, file.component, file.control) == (None, "denoiser", "canny" if name == "canny" else None)
    assert any(pair.up.abs().max() > 0 for pair in read_lora(file.path).factors.values())


def test_a_student_learns_the_mean_velocity_between_two_points_of_its_teacher_s_way(weights: Path, tmp_path: Path):
    recipe, _ = small_recipe("distilled", cache=tmp_path / "cache")
    objective = DistillationObjective(recipe, output=weights)
    kept = objective.trajectories
    assert kept.latents.shape == (6, 3, 64, 3, 2, 2)  # pure noise, halfway, clean
    here, there = kept.latents[:, 0].float(), kept.latents[:, 1].float()
    velocity = (there - here) / (objective.sigmas[1] - objective.sigmas[0])

    class Perfect(torch.nn.Module):
        def forward(self, tokens: Tokens, context: Context) -> torch.Tensor:
            return rearrange(velocity[:2], "b c t h w -> b (t h w) c")

    assert objective._error(Perfect(), [0, 1], levels=[0, 0]).item() == pytest.approx(0, abs=1e-10)
    assert objective._error(Perfect(), [1, 0], levels=[0, 0]).item() > 0.01
    # A pinned first frame does not move on the way.
    for row in kept.pinned.nonzero()[:, 0].tolist():
        assert torch.equal(kept.latents[row, 0, :, 0], kept.latents[row, 2, :, 0])


def test_a_frozen_encoder_stays_as_it_was(weights: Path, tmp_path: Path):
    before = make_miniature(weights=str(weights)).load("vae").state_dict()
    recipe, objective_class = small_recipe("vae_decoder", cache=tmp_path)
    Trainer(objective_class(recipe, output=weights), recipe, folder=tmp_path / "run").run()
    after = make_miniature(weights=str(weights)).load("vae").state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_a_share_of_the_clips_has_its_beginning_given(weights: Path, tmp_path: Path):
    recipe, _ = small_recipe("denoiser", cache=tmp_path / "cache")
    objective = FlowObjective(recipe, output=weights)
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    levels = torch.cat([objective._levels(objective.source.draw(rng), rng, generator, first=torch.ones(3, 1, 1, 1, 1)) for _ in range(200)])
    first, second, last = levels[:, 0, 0, 0, 0], levels[:, 0, 1, 0, 0], levels[:, 0, 2, 0, 0]
    given = recipe.given
    assert ((first < second) & (second > 0)).float().mean() == pytest.approx(given.first, abs=0.05)
    assert (second == 0).float().mean() == pytest.approx(given.beginning, abs=0.05)
    assert (last > 0).all()


def test_a_share_of_the_steps_has_pictures_of_later_frames(weights: Path, tmp_path: Path):
    recipe, _ = small_recipe("denoiser", cache=tmp_path / "cache")
    objective = FlowObjective(recipe, output=weights)
    rng = random.Random(0)
    drawn = [objective._stills(objective.source.draw(rng), rng) for _ in range(200)]
    given = [stills for stills in drawn if stills is not None]
    assert len(given) / 200 == pytest.approx(recipe.given.stills, abs=0.08)
    assert {stills.values.shape[1] // 4 for stills in given} == {1, 2, 3}
    clean = [stills for stills in given if not stills.freedom.any()]
    assert len(clean) / len(given) == pytest.approx(0.8, abs=0.2)
    seconds = torch.cat([stills.positions[0, :, 0] for stills in given])
    assert seconds.min() >= 1 / 16 and seconds.max() <= 8 / 16


def test_the_loss_on_unseen_clips_is_logged_with_every_checkpoint(weights: Path, tmp_path: Path):
    recipe, objective_class = small_recipe("denoiser", cache=tmp_path / "cache")
    Trainer(objective_class(recipe, output=weights), recipe, folder=tmp_path / "run").run()
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last.keys() == {"step", "held_out_0.6", "held_out_0.85"}
    assert all(0 < last[f"held_out_{level}"] < 3 for level in (0.6, 0.85))


def test_a_refiner_learns_from_where_a_draft_is_noised_to(weights: Path, tmp_path: Path):
    recipe, _ = small_recipe("refiner", cache=tmp_path / "cache")
    objective = FlowObjective(recipe, output=weights)
    batch = objective.source.draw(random.Random(0))
    first = objective._first_sigmas(3, torch.Generator().manual_seed(0))
    plain = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    noise = objective._noise(batch, plain, torch.Generator().manual_seed(2), first=first)
    assert objective.drafts is not None
    half = objective.drafts.caches[batch.kind].latents[batch.rows].float()
    draft = make_miniature(weights=str(weights)).load("upsampler")(half)
    assert (first >= 0.25).all() and (first <= 0.75).all()
    torch.testing.assert_close((1 - first) * batch.latents + first * noise, (1 - first) * draft + first * plain, rtol=1e-3, atol=1e-3)
