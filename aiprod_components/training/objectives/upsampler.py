"""latents of a clip at half size -> latents of the same clip at full size"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import save_model
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.training.config import BaseRecipe
from aiprod_components.training.dataset import step_rng
from aiprod_components.training.latent_cache import ClipSet, open_cache


class UpsamplerRecipe(BaseRecipe):
    component: Literal["upsampler"]
    model: UpsamplerConfig
    cache: str
    num_frames: PositiveInt
    half_size: PositiveInt
    half_count: PositiveInt
    full_count: PositiveInt
    mix: SceneMix
    batch: PositiveInt
    blur: float  # standard deviation of the noise put on the half-size latents, as a generated draft is never perfect


class UpsamplerObjective:
    def __init__(self, recipe: UpsamplerRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.model = LatentUpsampler(recipe.model)
        half = ClipSet(recipe.half_size, recipe.num_frames, recipe.half_count, recipe.mix)
        full = ClipSet(2 * recipe.half_size, recipe.num_frames, recipe.full_count, recipe.mix)
        self.half, self.full = (open_cache(Path(recipe.cache), c, weights=output, device=recipe.device) for c in (half, full))

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        rows = [rng.randrange(min(len(self.half), len(self.full))) for _ in range(self.recipe.batch)]
        half, full = (cache.latents[rows].float().to(self.device) for cache in (self.half, self.full))
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        blurred = half + self.recipe.blur * torch.randn(half.shape, generator=generator).to(self.device)
        predicted = self.model(blurred).float()
        return {"loss": F.l1_loss(predicted, full), "mse": F.mse_loss(predicted, full)}

    def finish(self, model: nn.Module) -> None:
        save_model(model, self.output / "upsampler", dtype=torch.float16)
