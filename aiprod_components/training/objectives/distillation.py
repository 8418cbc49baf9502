"""a teacher's guided trajectories -> the mean velocity between two of the student's noise levels: latent distillation

The student, low-rank factors on the teacher's own network, learns to go in one unguided step where the teacher went in several guided
ones (progressive distillation, Salimans & Ho 2022, with the guidance folded in as in Meng et al. 2023). It learns from latents alone.
"""

from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.diffusion.schedulers import shifted_flow
from aiprod_components.families.miniature import make_miniature
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.backbone import BackboneConfig, HybridBackbone, tokens_of
from aiprod_components.models.checkpoint import load_model
from aiprod_components.models.lora import inject, injected, save_lora
from aiprod_components.training.config import BaseRecipe
from aiprod_components.training.dataset import FRAME_RATE, step_rng
from aiprod_components.training.objectives.clips import GRID, Captions, Teller
from aiprod_components.training.trajectories import TrajectorySet, open_trajectories
from aiprod_components.values import VideoShape


class DistillationRecipe(BaseRecipe):
    component: Literal["distilled"]
    teacher: Literal["denoiser"]
    rank: PositiveInt
    modules: str  # a pattern: the modules whose weights get factors
    cache: str
    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt
    held_out: PositiveInt  # the last trajectories, which training does not see
    batch: PositiveInt
    student_steps: PositiveInt
    pace: PositiveInt
    mix: SceneMix
    english_share: float = Field(ge=0, le=1)
    pinned_share: float = Field(ge=0, le=1)


class DistillationObjective:
    def __init__(self, recipe: DistillationRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.model = load_model(HybridBackbone, BackboneConfig, output / recipe.teacher)
        inject(self.model, rank=recipe.rank, modules=recipe.modules)
        family = make_miniature(weights=str(output))
        self.video = VideoShape(recipe.num_frames, recipe.size, recipe.size, FRAME_RATE)
        self.wanted = TrajectorySet(
            recipe.count, self.video, recipe.mix, recipe.student_steps, recipe.pace, recipe.english_share, recipe.pinned_share
        )
        self.trajectories = open_trajectories(Path(recipe.cache), self.wanted, family=family, device=self.device)
        self.sigmas = shifted_flow(recipe.student_steps, shift=family.sampling.shift.at(family.grid.tokens_of(self.video)))
        self.teller = Teller(Captions(english_share=1, dropout=0, attribute_drop=0), weights=output, device=self.device)

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        rows = [rng.randrange(self.recipe.count - self.recipe.held_out) for _ in range(self.recipe.batch)]
        return {"loss": self._error(self.model, rows, levels=[rng.randrange(self.recipe.student_steps) for _ in rows])}

    def held_out(self, model: nn.Module) -> dict[str, Tensor]:
        """The loss on trajectories that training does not see."""
        rows = list(range(self.recipe.count - self.recipe.held_out, self.recipe.count))
        with torch.no_grad():
            return {"held_out": self._error(model, rows, levels=[row % self.recipe.student_steps for row in rows])}

    def finish(self, model: nn.Module) -> None:
        file = self.output / "loras" / f"{self.recipe.component}.safetensors"
        save_lora(injected(model, name=self.recipe.component), file, metadata={"family": "miniature", "component": self.recipe.teacher})

    def _error(self, model: nn.Module, rows: list[int], *, levels: list[int]) -> Float[Tensor, ""]:
        here = self.trajectories.latents[rows, levels].float()
        there = self.trajectories.latents[rows, [level + 1 for level in levels]].float()
        sigma, next_sigma = (_column([self.sigmas[level + ahead] for level in levels]) for ahead in (0, 1))
        free = torch.ones(here[:, :1].shape)
        free[self.trajectories.pinned[rows], :, 0] = 0.0
        tokens = tokens_of(here, levels=free * sigma, positions=grid_positions(self.video, grid=GRID))
        context = self.teller.read([self.wanted.caption(row) for row in rows], video=self.video)
        target, weight = _tokens((there - here) / (next_sigma - sigma)), _tokens(free)[..., 0]
        error = (model(tokens.to(self.device), context).float() - target.to(self.device)).square().mean(dim=-1)
        return (error * weight.to(self.device)).sum() / weight.sum()


def _column(numbers: list[float]) -> Float[Tensor, "B 1 1 1 1"]:
    return rearrange(torch.tensor(numbers), "b -> b 1 1 1 1")


def _tokens(latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N C"]:
    return rearrange(latents, "b c t h w -> b (t h w) c")
