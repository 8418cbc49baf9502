"""latents of a clip at a low size or frame rate -> latents of the same clip at a high one"""

from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import save_model
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.training.config import BaseRecipe, Strict
from aiprod_components.training.dataset import FRAME_RATE, step_rng
from aiprod_components.training.latent_cache import ClipSet, open_cache
from aiprod_components.values import LatentGrid, VideoShape


class Clips(Strict):
    """One of the two caches: the first `count` clips at one size and frame rate."""

    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt
    frame_rate: PositiveFloat = FRAME_RATE

    def grid(self, config: UpsamplerConfig) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        shape = VideoShape(self.num_frames, self.size, self.size, self.frame_rate)
        _, *grid = LatentGrid(time=4, space=16, channels=config.latent_channels).shape_of(shape)
        return grid[0], grid[1], grid[2]


class _PairRecipe(BaseRecipe):
    """What both recipes have. The noise is put on the low latents, as a generated draft is never perfect."""

    model: UpsamplerConfig
    cache: str
    mix: SceneMix
    batch: PositiveInt
    blur: float  # standard deviation of that noise


class UpsamplerRecipe(_PairRecipe):
    """The upsampler of the two stages: twice the height and width."""

    component: Literal["upsampler"]
    num_frames: PositiveInt
    half_size: PositiveInt
    half_count: PositiveInt
    full_count: PositiveInt

    @property
    def low(self) -> Clips:
        return Clips(size=self.half_size, num_frames=self.num_frames, count=self.half_count)

    @property
    def high(self) -> Clips:
        return Clips(size=2 * self.half_size, num_frames=self.num_frames, count=self.full_count)


class ResamplerRecipe(_PairRecipe):
    """An upsampler by any other factor, in space or time. An error when `model` does not lead from `low` to `high`."""

    component: Literal["temporal_upsampler", "upsampler_3_2", "upsampler_3_4", "upsampler_4_1"]
    low: Clips
    high: Clips

    @model_validator(mode="after")
    def _leads_from_low_to_high(self) -> Self:
        made, asked = self.model.size_of(*self.low.grid(self.model)), self.high.grid(self.model)
        if made != asked:
            raise ValueError(f"model makes latents of (frames, height, width) {made} of those of low, and high has {asked}; change high")
        if (self.low.num_frames - 1) / self.low.frame_rate != (self.high.num_frames - 1) / self.high.frame_rate:
            raise ValueError("low and high must last equally long; change num_frames or frame_rate of high")
        return self


class UpsamplerObjective:
    def __init__(self, recipe: UpsamplerRecipe | ResamplerRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.model = LatentUpsampler(recipe.model)
        sets = (ClipSet(c.size, c.num_frames, c.count, recipe.mix, frame_rate=c.frame_rate) for c in (recipe.low, recipe.high))
        self.low, self.high = (open_cache(Path(recipe.cache), clips, weights=output, device=recipe.device) for clips in sets)

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        rows = [rng.randrange(min(len(self.low), len(self.high))) for _ in range(self.recipe.batch)]
        low, high = (cache.latents[rows].float().to(self.device) for cache in (self.low, self.high))
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        blurred = low + self.recipe.blur * torch.randn(low.shape, generator=generator).to(self.device)
        predicted = self.model(blurred).float()
        return {"loss": F.l1_loss(predicted, high), "mse": F.mse_loss(predicted, high)}

    def finish(self, model: nn.Module) -> None:
        save_model(model, self.output / self.recipe.component, dtype=torch.float16)
