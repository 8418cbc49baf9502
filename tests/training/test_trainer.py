"""A training run can be stopped anywhere, and its recipes are whole."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from aiprod_components.miniature.world import SceneMix
from aiprod_components.training.config import BaseRecipe, Schedule
from aiprod_components.training.dataset import clips_of
from aiprod_components.training.objectives import COMPONENTS
from aiprod_components.training.optimizer import MatrixOptimizer
from aiprod_components.training.quality import held_out_caption, held_out_scene, judged, look
from aiprod_components.training.quality_page import render_page
from aiprod_components.training.trainer import Trainer, learning_rate

RECIPES = sorted((Path(__file__).parents[2] / "aiprod_components" / "training" / "recipes").glob("*.yaml"))


class Line:
    """Learns y = 3x - 1 from points that depend on the step alone."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 1))
        self.finished: nn.Module | None = None

    def loss(self, step: int) -> dict[str, Tensor]:
        x = torch.rand(32, 1, generator=torch.Generator().manual_seed(step))
        return {"loss": (self.model(x).float() - (3 * x - 1)).square().mean()}

    def finish(self, model: nn.Module) -> None:
        self.finished = model


def recipe(steps: int) -> BaseRecipe:
    return BaseRecipe(schedule=Schedule(steps=steps, learning_rate=2e-2), threads=1)


def test_a_run_learns_and_finishes_with_the_averaged_weights(tmp_path: Path):
    objective = Line()
    before = objective.loss(0)["loss"].item()
    Trainer(objective, recipe(150), folder=tmp_path).run()
    assert objective.loss(0)["loss"].item() < before / 20
    assert objective.finished is not objective.model
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == list(range(25, 151, 25))


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path):
    whole, halves = Line(), Line()
    Trainer(whole, recipe(40), folder=tmp_path / "whole").run()
    # The learning rate follows the share of the run, so the first half must know of the whole.
    first = Trainer(halves, recipe(40), folder=tmp_path / "halves")
    for _ in range(20):
        first._train_step()
        first.step += 1
    first._save()
    second = Line()
    Trainer(second, recipe(40), folder=tmp_path / "halves").run()
    for expected, got in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_a_share_of_the_way_is_the_same_however_often_a_run_is_finished(tmp_path: Path):
    class Onward(Line):
        """Begins where the last run ended."""

        def __init__(self, begin: nn.Module) -> None:
            super().__init__()
            self.model.load_state_dict(begin.state_dict())

    start, whole = Line().model, Line()
    Trainer(whole, recipe(30), folder=tmp_path / "whole").run()
    partly = recipe(30).model_copy(update={"schedule": Schedule(steps=30, learning_rate=2e-2, share=0.25)})
    first = Onward(start)
    Trainer(first, partly, folder=tmp_path / "partly").run()
    assert whole.finished is not None and first.finished is not None
    again = Onward(first.finished)
    Trainer(again, partly, folder=tmp_path / "partly").run()
    assert again.finished is not None
    states = (each.state_dict() for each in (start, whole.finished, first.finished, again.finished))
    for begun, ended, shared, repeated in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(shared, begun + 0.25 * (ended - begun))
        torch.testing.assert_close(repeated, shared, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_the_run_and_leaves_the_weights(tmp_path: Path):
    class Broken(Line):
        def loss(self, step: int) -> dict[str, Tensor]:
            return {"loss": super().loss(step)["loss"] * math.inf}

    objective = Broken()
    before = [parameter.clone() for parameter in objective.model.parameters()]
    with pytest.raises(RuntimeError, match="non-finite"):
        Trainer(objective, recipe(2), folder=tmp_path).run()
    assert all(torch.equal(was, now) for was, now in zip(before, objective.model.parameters(), strict=True))


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_hundredth():
    schedule = Schedule(steps=1000, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(schedule, step=step) for step in range(1000)]
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates.index(max(rates)) == pytest.approx(100, abs=2)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_the_optimizer_moves_kernels_in_place_and_orthogonally(memory_format: torch.memory_format):
    torch.manual_seed(0)
    layer = nn.Conv3d(16, 16, 3).to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]  # missing in torch's stubs
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn_like(layer.weight)
    MatrixOptimizer(layer, weight_decay=0.0).step(1.0)
    update = (layer.weight.detach() - before).flatten(start_dim=1)
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.5 * singular.max() > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole_and_a_misspelt_key_is_an_error(path: Path):
    record = yaml.safe_load(path.read_text())
    recipe_class, _ = COMPONENTS[record["component"]]
    recipe_class.model_validate(record)
    with pytest.raises(ValueError, match="larning_rate"):
        recipe_class.model_validate({**record, "larning_rate": 1})


def test_every_component_has_a_recipe():
    assert {yaml.safe_load(path.read_text())["component"] for path in RECIPES} == set(COMPONENTS)


def test_the_quality_page_shows_what_was_measured():
    figures = {"reconstruction": {"128x128 plain": {"clips": 3, "ssim": 0.9712, "psnr": 31.5, "attributes_right": 0.97}}}
    shares = {"clips": 4, "attributes_legible": 0.95, "attributes_right": 0.75, "all_right": 0.5}
    page = render_page(
        {
            **figures,
            "weights": "0123",
            "eight_steps": shares,
            "english": {**shares, "by_attribute": {}, "legible_by_attribute": {}, "refused": {}},
        },
        sheets=2,
    )
    assert "| 128x128 plain | 3 | 0.9712 | 31.50 dB |" in page
    assert "| 8 + 3 steps | 4 | 95.0 % | 75.0 % | 50.0 % |" in page
    assert "quality/sheet_2.png" in page


def test_what_is_read_of_an_unclean_clip_is_legible_and_not_right():
    scene = held_out_scene(0, mix=SceneMix())
    caption = held_out_caption(scene, language="en", index=0)
    frames = clips_of([scene], num_frames=33, size=128)[0]
    holes = frames.clone()
    holes[:, ::8] = 255  # white stripes over everything
    clean, unclean = (look(clip, caption=caption, scene=scene) for clip in (frames, holes))
    shares = judged([clean, replace(clean, right=dict.fromkeys(clean.right, False), refused="frayed")])
    assert (shares["attributes_right"], shares["attributes_legible"], shares["all_right"]) == (0.5, 1.0, 0.5)
    assert unclean.refused and not any(unclean.right.values()) and clean.refused is None
    assert all(unclean.legible.values())
