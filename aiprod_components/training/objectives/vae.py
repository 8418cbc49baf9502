"""clips -> reconstruction and posterior -> MSE + L1 + KL"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import load_model, save_model
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.training.config import BaseRecipe, Strict
from aiprod_components.training.dataset import crops_of, draw_seeds, scenes_of, step_rng


class ClipShape(Strict):
    """One kind of batch, and how often it is drawn: `weight` at the start of the run, moving to `final_weight`."""

    batch: PositiveInt
    num_frames: PositiveInt
    size: PositiveInt
    crop: PositiveInt | None = None  # pixels of the frame's side to see, around a thing
    weight: float = Field(ge=0)
    final_weight: float = Field(ge=0)


class WeightedMix(Strict):
    """One kind of scene, and how often it is drawn."""

    mix: SceneMix
    weight: float = Field(ge=0)


class VAERecipe(BaseRecipe):
    component: Literal["vae"]
    model: VideoVAEConfig
    start_from: str | None  # weights to go on from
    frozen_encoder: bool = False  # teaches the decoder alone: latents stay what other networks were trained on
    clips: list[ClipShape]
    mixes: list[WeightedMix]
    mse_weight: float = 1.0
    l1_weight: float = 0.0
    kl_weight: float = 0.1
    statistics_clips: PositiveInt = 256


class VAEObjective:
    def __init__(self, recipe: VAERecipe, *, output: Path) -> None:
        self.recipe, self.output = recipe, output
        torch.manual_seed(recipe.seed)
        self.model = VideoVAE(recipe.model)
        if recipe.start_from is not None:
            self.model.load_state_dict(load_model(VideoVAE, VideoVAEConfig, output / recipe.start_from).state_dict())
        self.model.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]  # missing in torch's stubs
        self.model.encoder.requires_grad_(not recipe.frozen_encoder)

    def loss(self, step: int) -> dict[str, Tensor]:
        frames = self._batch(step)
        generator = torch.Generator().manual_seed(step)
        shape = (len(frames), self.recipe.model.latent_channels, (frames.shape[2] + 3) // 4, frames.shape[3] // 16, frames.shape[4] // 16)
        reconstruction, posterior = self.model(frames, torch.randn(shape, generator=generator).to(frames.device))
        mse, l1 = F.mse_loss(reconstruction, frames), F.l1_loss(reconstruction, frames)
        kl = posterior.kl()
        loss = self.recipe.mse_weight * mse + self.recipe.l1_weight * l1 + self.recipe.kl_weight * kl
        return {"loss": loss, "mse": mse, "l1": l1, "kl": kl}

    def finish(self, model: nn.Module) -> None:
        """Stores the channels' statistics in the weights, then writes them."""
        assert isinstance(model, VideoVAE)
        if not self.recipe.frozen_encoder:
            self._measure_latents(model)
        save_model(model, self.output / "vae", dtype=torch.float16)

    def _measure_latents(self, model: VideoVAE) -> None:
        recipe = self.recipe
        latents = [self._mu(model, self._batch(recipe.schedule.steps + k)) for k in range(recipe.statistics_clips // 8)]
        per_channel = torch.cat(latents, dim=1)
        model.mean.copy_(per_channel.mean(dim=1))
        model.std.copy_(per_channel.std(dim=1))

    def _mu(self, model: VideoVAE, frames: Tensor) -> Tensor:
        with torch.no_grad():
            return model.posterior(frames).mu.float().movedim(1, 0).flatten(start_dim=1)

    def _batch(self, step: int) -> Tensor:
        recipe, rng = self.recipe, step_rng(self.recipe.seed, step)
        progress = min(max(step / recipe.schedule.steps, 0.0), 1.0)
        weights = [clip.weight + progress * (clip.final_weight - clip.weight) for clip in recipe.clips]
        shape = rng.choices(recipe.clips, weights=weights)[0]
        mixes = rng.choices(recipe.mixes, weights=[kind.weight for kind in recipe.mixes], k=shape.batch)
        drawn = zip(mixes, draw_seeds(rng, shape.batch), strict=True)
        scenes = [scene for kind, seed in drawn for scene in scenes_of([seed], mix=kind.mix)]
        device = next(self.model.parameters()).device
        clips = crops_of(scenes, num_frames=shape.num_frames, size=shape.size, crop=shape.crop or shape.size)
        return to_unit(clips).to(device)
