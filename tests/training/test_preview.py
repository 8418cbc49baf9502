"""What previews are computed by finds the map that is there to be found, and writes weights that load."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from aiprod_components.families.miniature import SHIPPED_WEIGHTS, make_miniature
from aiprod_components.models.preview import LatentPreview
from aiprod_components.training.objectives.preview import PreviewObjective, PreviewRecipe
from aiprod_components.training.trainer import Solved

RECIPE = Path(__file__).parents[2] / "aiprod_components" / "training" / "recipes" / "preview.yaml"


def objective_of(folder: Path, **fields: Any) -> PreviewObjective:
    for suffix in ("json", "safetensors"):
        shutil.copy(SHIPPED_WEIGHTS / f"vae.{suffix}", folder)
    return PreviewObjective(PreviewRecipe.model_validate({**yaml.safe_load(RECIPE.read_text()), **fields}), output=folder)


def test_the_map_that_made_the_pictures_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    objective = objective_of(tmp_path, clips=[{"size": 64, "num_frames": 9, "count": 60}], ridge=1e-9)
    torch.manual_seed(0)
    maker = LatentPreview(objective.recipe.model).requires_grad_(False)

    def seen(clips: object, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        latents = torch.randn(1, 64, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return latents, maker(latents)

    monkeypatch.setattr(objective, "_seen", seen)
    objective.solve()
    torch.testing.assert_close(objective.model.corners.weight, maker.corners.weight, rtol=0, atol=1e-4)
    torch.testing.assert_close(objective.model.corners.bias, maker.corners.bias, rtol=0, atol=1e-4)


def test_the_recipe_writes_a_preview_that_its_family_has(tmp_path: Path):
    objective = objective_of(tmp_path, clips=[{"size": 32, "num_frames": 9, "count": 2}])
    assert isinstance(objective, Solved) and not make_miniature(weights=str(tmp_path)).has("preview")
    objective.solve()
    family = make_miniature(weights=str(tmp_path))
    assert family.has("preview")
    assert family.load("preview")(torch.zeros(1, 64, 3, 2, 2)).shape == (1, 3, 3, 16, 16)
    assert (tmp_path / "preview.safetensors").stat().st_size < 200_000
