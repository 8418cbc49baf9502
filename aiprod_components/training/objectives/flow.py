"""cached latents, captions -> noisy tokens -> velocity: what the denoiser and the refiner learn

Rectified flow with logit-normal noise levels (Esser et al. 2024). Of a share of the clips the first latent frame is given, wholly or in
part, or the first few, as a clip to go on from; in a share of the steps some frames are appended as pictures (keyframes). So every
kind of conditioning is learnt with the rest; what is given whole is not in the loss.

A refiner starts from a draft: x = (1 - first) draft + first noise. That is where rectified flow from the true latents
would be if its noise were noise + (1 - first) / first (draft - true); trained with that noise, the refiner mends the
draft's errors along with the noise it was given.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from aiprod_components.diffusion.conditioning import Appended, add_noise
from aiprod_components.diffusion.positions import grid_positions, guide_positions
from aiprod_components.models.backbone import BackboneConfig, HybridBackbone, tokens_of
from aiprod_components.models.checkpoint import load_model, save_model
from aiprod_components.models.lora import inject, injected, save_lora
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.training.config import BaseRecipe, Strict
from aiprod_components.training.dataset import step_rng
from aiprod_components.training.objectives.clips import (
    GRID,
    Batch,
    CachedClips,
    Captions,
    ClipSource,
    Teller,
    clean_guides,
    encode_stills,
    load_vae,
)

LONGEST_BEGINNING = 4  # latent frames
MOST_STILLS = 3
HELD_OUT_LEVELS = (0.6, 0.85)


class NoiseLevels(Strict):
    """sigma = sigmoid(normal(mean, std)), times the first sigma where there are drafts."""

    mean: float
    std: PositiveFloat


class Given(Strict):
    """How often something of a clip is given."""

    first: float = Field(ge=0, le=1)  # of the clips: their first latent frame
    beginning: float = Field(ge=0, le=1)  # of the clips: their first two to four
    stills: float = Field(ge=0, le=1)  # of the steps: one to three frames as pictures


class Drafts(Strict):
    """A refiner's drafts: the same clips at half their size, upsampled. Their first sigma is uniform in lowest...highest."""

    blur: float  # standard deviation of the noise put on the half-size latents, as a generated draft is never perfect
    lowest: float = Field(gt=0, le=1)
    highest: float = Field(gt=0, le=1)


class Control(Strict):
    """An in-context LoRA: the network stays as it is, and low-rank factors learn to follow what the control sees in the clip itself."""

    name: str  # of media.controls
    downscale: PositiveInt = 1  # how much smaller than the clip its reference is
    rank: PositiveInt
    modules: str  # a pattern: the modules whose weights get factors


class FlowRecipe(BaseRecipe):
    component: Literal["denoiser", "refiner", "canny"]
    model: BackboneConfig
    start_from: str | None  # another component's weights to go on from
    cache: str
    clips: list[CachedClips]
    captions: Captions
    sigmas: NoiseLevels
    given: Given
    drafts: Drafts | None = None
    control: Control | None = None


class _DraftMaker:
    """Rows of the half-size caches -> drafts at full size."""

    def __init__(self, drafts: Drafts, source: ClipSource) -> None:
        self.blur, self.device = drafts.blur, torch.device(source.device)
        self.upsampler = load_model(LatentUpsampler, UpsamplerConfig, source.weights / "upsampler").to(self.device)
        self.caches = {kind: source.halves(kind) for kind in source.clips}

    def of(self, batch: Batch, *, generator: torch.Generator) -> Float[Tensor, "B C T H W"]:
        half = self.caches[batch.kind].latents[batch.rows, :, : batch.latents.shape[2]].float()
        half = half + self.blur * torch.randn(half.shape, generator=generator)
        with torch.no_grad():
            return self.upsampler(half.to(self.device)).float().cpu()


class FlowObjective:
    def __init__(self, recipe: FlowRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.model = HybridBackbone(recipe.model)
        if recipe.start_from is not None:
            self.model.load_state_dict(load_model(HybridBackbone, BackboneConfig, output / recipe.start_from).state_dict())
        self.source = ClipSource(recipe.clips, cache=recipe.cache, weights=output, device=recipe.device)
        if recipe.control is not None:
            inject(self.model, rank=recipe.control.rank, modules=recipe.control.modules)
            for kind in recipe.clips:
                self.source.controls(kind, recipe.control.name, downscale=recipe.control.downscale)
        self.teller = Teller(recipe.captions, weights=output, device=self.device)
        self.vae = load_vae(output, device=self.device)
        self.drafts = None if recipe.drafts is None else _DraftMaker(recipe.drafts, self.source)
        self.unseen = None if self.drafts else self.source.held_out(recipe.clips[0], vae=self.vae)

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        batch = self.source.draw(rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        first = self._first_sigmas(len(batch.latents), generator)
        plain = torch.randn(batch.latents.shape, generator=generator)
        levels = self._levels(batch, rng, generator, first=first)
        # What is pinned in part starts from what it is pinned to, not from the draft.
        given_in_part = levels < levels.amax(dim=(2, 3, 4), keepdim=True)
        noise = torch.where(given_in_part, plain, self._noise(batch, plain, generator, first=first))
        return {"loss": self._error(self.model, batch, noise=noise, levels=levels, appended=self._beside(batch, rng), rng=rng)}

    def held_out(self, model: nn.Module) -> dict[str, Tensor]:
        """The loss on clips that training never sees, at two noise levels: it rises when a network learns its clips by heart."""
        if self.unseen is None:
            return {}
        batch = self.unseen
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return {
                f"held_out_{level}": self._error(
                    model,
                    batch,
                    noise=noise,
                    levels=torch.full((len(noise), 1, *noise.shape[2:]), level),
                    appended=self._reference(batch),
                    rng=random.Random(0),
                )
                for level in HELD_OUT_LEVELS
            }

    def finish(self, model: nn.Module) -> None:
        recipe = self.recipe
        if recipe.control is None:
            save_model(model, self.output / recipe.component, dtype=torch.float16)
        else:
            file = self.output / "loras" / f"{recipe.component}.safetensors"
            metadata = {"family": "miniature", "component": str(recipe.start_from), "control": recipe.control.name}
            metadata["downscale"] = str(recipe.control.downscale)
            save_lora(injected(model, name=recipe.component), file, metadata=metadata)

    def _error(
        self, model: nn.Module, batch: Batch, *, noise: Tensor, levels: Tensor, appended: Appended | None, rng: random.Random
    ) -> Float[Tensor, ""]:
        noisy = add_noise(batch.latents, noise=noise, sigma=levels)
        tokens = tokens_of(noisy, levels=levels, positions=grid_positions(batch.kind.video, grid=GRID), guides=appended)
        velocity = model(tokens.to(self.device), self.teller.tell(batch, rng))
        target = rearrange(noise - batch.latents, "b c t h w -> b (t h w) c").to(self.device)
        free = (rearrange(levels, "b 1 t h w -> b (t h w)") > 0).to(self.device)
        return ((velocity.float() - target).square().mean(dim=-1) * free).sum() / free.sum()

    def _noise(
        self, batch: Batch, plain: Float[Tensor, "B C T H W"], generator: torch.Generator, *, first: Float[Tensor, "B 1 1 1 1"]
    ) -> Float[Tensor, "B C T H W"]:
        """The noise with the draft's error in it, where there are drafts."""
        if self.drafts is None:
            return plain
        return plain + (1 - first) / first * (self.drafts.of(batch, generator=generator) - batch.latents)

    def _first_sigmas(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 1 1 1 1"]:
        if self.recipe.drafts is None:
            return torch.ones(count, 1, 1, 1, 1)
        lowest, highest = self.recipe.drafts.lowest, self.recipe.drafts.highest
        return lowest + (highest - lowest) * torch.rand(count, 1, 1, 1, 1, generator=generator)

    def _levels(
        self, batch: Batch, rng: random.Random, generator: torch.Generator, *, first: Float[Tensor, "B 1 1 1 1"]
    ) -> Float[Tensor, "B 1 T H W"]:
        recipe, given = self.recipe.sigmas, self.recipe.given
        drawn = torch.sigmoid(recipe.mean + recipe.std * torch.randn(first.shape, generator=generator)) * first
        levels = drawn.expand(-1, 1, *batch.latents.shape[2:]).clone()
        for row in range(len(levels)):
            lot = rng.random()
            if levels.shape[2] == 1:
                continue  # a still is all that there is
            if lot < given.first:
                levels[row, :, 0] *= 0.0 if rng.random() < 0.8 else rng.random()
            elif lot < given.first + given.beginning:
                levels[row, :, : rng.randint(2, min(LONGEST_BEGINNING, levels.shape[2] - 1))] = 0.0
        return levels

    def _beside(self, batch: Batch, rng: random.Random) -> Appended | None:
        return self._stills(batch, rng) if self.recipe.control is None else self._reference(batch)

    def _reference(self, batch: Batch) -> Appended | None:
        """What the control sees in the clips, clean and in the same places; smaller, it covers the same view."""
        control, video = self.recipe.control, batch.kind.video
        if control is None:
            return None
        latents = self.source.controlled(batch, control=control.name, downscale=control.downscale, vae=self.vae)
        size = replace(video, height=video.height // control.downscale, width=video.width // control.downscale)
        return clean_guides(rearrange(latents, "b c t h w -> b (t h w) c"), guide_positions(size, video=video, frame=0, grid=GRID))

    def _stills(self, batch: Batch, rng: random.Random) -> Appended | None:
        """Pictures of frames after the first; mostly clean, or all with some noise of their own."""
        if rng.random() >= self.recipe.given.stills or batch.kind.video.num_frames == 1:
            return None
        frames = sorted(rng.sample(range(1, batch.kind.video.num_frames), rng.randint(1, MOST_STILLS)))
        stills = encode_stills(self.vae, batch, frames=frames, device=self.device)
        if rng.random() < 0.8:
            return stills
        level = rng.random()
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        noise = torch.randn(stills.values.shape, generator=generator)
        return replace(
            stills, values=add_noise(stills.values, noise=noise, sigma=torch.tensor(level)), freedom=torch.full_like(stills.freedom, level)
        )
