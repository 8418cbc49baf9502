"""cached latents, captions -> noisy tokens -> velocity: what the denoiser and the refiner learn

Rectified flow with logit-normal noise levels (Esser et al. 2024). A share of the clips has its first latent frame
pinned, wholly or in part, so that image conditioning is learnt with the rest; what is pinned whole is not in the loss.

A refiner starts from a draft: x = (1 - first) draft + first noise. That is where rectified flow from the true latents
would be if its noise were noise + (1 - first) / first (draft - true); trained with that noise, the refiner mends the
draft's errors along with the noise it was given.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from aiprod_components.diffusion.conditioning import add_noise
from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.miniature.captions import LANGUAGES, write_caption
from aiprod_components.miniature.world import Scene, SceneMix
from aiprod_components.models.backbone import BackboneConfig, Context, HybridBackbone, Tokens
from aiprod_components.models.checkpoint import load_model, save_model
from aiprod_components.models.text_encoder import TextEncoder, TextEncoderConfig, make_tokenizer
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.training.config import BaseRecipe, Strict
from aiprod_components.training.dataset import FRAME_RATE, step_rng
from aiprod_components.training.latent_cache import ClipSet, LatentCache, open_cache
from aiprod_components.values import LatentGrid, VideoShape


class CachedClips(Strict):
    """Clips of one size, and how often and how many of them a step takes."""

    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt
    batch: PositiveInt
    weight: PositiveFloat


class NoiseLevels(Strict):
    """sigma = sigmoid(normal(mean, std)), times the first sigma where there are drafts."""

    mean: float
    std: PositiveFloat


class Drafts(Strict):
    """A refiner's drafts: the same clips at half their size, upsampled. Their first sigma is uniform in lowest...highest."""

    count: PositiveInt  # of the half-size cache
    blur: float  # standard deviation of the noise put on the half-size latents, as a generated draft is never perfect
    lowest: float = Field(gt=0, le=1)
    highest: float = Field(gt=0, le=1)


class FlowRecipe(BaseRecipe):
    component: Literal["denoiser", "refiner"]
    model: BackboneConfig
    start_from: str | None  # another component's weights to go on from
    cache: str
    clips: list[CachedClips]
    mix: SceneMix
    sigmas: NoiseLevels
    drafts: Drafts | None = None
    english_share: float = Field(ge=0, le=1)
    caption_dropout: float = Field(ge=0, le=1)
    attribute_drop: float = Field(ge=0, le=1)
    pinned_share: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class _Batch:
    rows: list[int]
    latents: Float[Tensor, "B C T H W"]
    scenes: list[Scene]
    video: VideoShape


class _DraftMaker:
    """Rows of the half-size caches -> drafts at full size."""

    def __init__(self, recipe: FlowRecipe, drafts: Drafts, *, weights: Path) -> None:
        self.blur, self.device = drafts.blur, torch.device(recipe.device)
        self.upsampler = load_model(LatentUpsampler, UpsamplerConfig, weights / "upsampler").to(self.device)
        self.caches = {
            clips.size: _open(recipe, ClipSet(clips.size // 2, clips.num_frames, drafts.count, recipe.mix), weights=weights)
            for clips in recipe.clips
        }

    def of(self, rows: list[int], *, video: VideoShape, generator: torch.Generator) -> Float[Tensor, "B C T H W"]:
        half = self.caches[video.height].latents[rows].float()
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
        self.grid = LatentGrid(time=4, space=16, channels=recipe.model.latent_channels)
        self.text = load_model(TextEncoder, TextEncoderConfig, output / "text_encoder").to(self.device)
        self.tokenize = make_tokenizer(self.text.config)
        self.caches = {
            (clips.size, clips.num_frames): _open(recipe, ClipSet(clips.size, clips.num_frames, clips.count, recipe.mix), weights=output)
            for clips in recipe.clips
        }
        self.drafts = None if recipe.drafts is None else _DraftMaker(recipe, recipe.drafts, weights=output)

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        batch = self._batch(rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        first = self._first_sigmas(len(batch.latents), generator)
        noise = self._noise(batch, generator, first=first)
        levels = self._levels(batch, rng, generator, first=first)
        noisy = add_noise(batch.latents, noise=noise, sigma=levels)
        tokens = Tokens(
            values=_tokens(noisy).to(self.device),
            sigmas=_tokens(levels)[..., 0].to(self.device),
            positions=grid_positions(batch.video, grid=self.grid).expand(len(noisy), -1, -1).to(self.device),
            grid=(noisy.shape[2], noisy.shape[3], noisy.shape[4]),
        )
        velocity = self.model(tokens, self._context(batch, rng))
        error = (velocity.float() - _tokens(noise - batch.latents).to(self.device)).square().mean(dim=-1)
        free = tokens.sigmas > 0
        return {"loss": (error * free).sum() / free.sum()}

    def finish(self, model: nn.Module) -> None:
        save_model(model, self.output / self.recipe.component, dtype=torch.float16)

    def _batch(self, rng: random.Random) -> _Batch:
        clips = rng.choices(self.recipe.clips, weights=[clips.weight for clips in self.recipe.clips])[0]
        cache = self.caches[clips.size, clips.num_frames]
        rows = [rng.randrange(len(cache)) for _ in range(clips.batch)]
        video = VideoShape(clips.num_frames, clips.size, clips.size, FRAME_RATE)
        return _Batch(rows, cache.latents[rows].float(), cache.scenes(rows), video)

    def _noise(self, batch: _Batch, generator: torch.Generator, *, first: Float[Tensor, "B 1 1 1 1"]) -> Float[Tensor, "B C T H W"]:
        noise = torch.randn(batch.latents.shape, generator=generator)
        if self.drafts is None:
            return noise
        return noise + (1 - first) / first * (self.drafts.of(batch.rows, video=batch.video, generator=generator) - batch.latents)

    def _first_sigmas(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 1 1 1 1"]:
        if self.recipe.drafts is None:
            return torch.ones(count, 1, 1, 1, 1)
        lowest, highest = self.recipe.drafts.lowest, self.recipe.drafts.highest
        return lowest + (highest - lowest) * torch.rand(count, 1, 1, 1, 1, generator=generator)

    def _levels(
        self, batch: _Batch, rng: random.Random, generator: torch.Generator, *, first: Float[Tensor, "B 1 1 1 1"]
    ) -> Float[Tensor, "B 1 T H W"]:
        recipe = self.recipe.sigmas
        drawn = torch.sigmoid(recipe.mean + recipe.std * torch.randn(first.shape, generator=generator)) * first
        levels = drawn.expand(-1, 1, *batch.latents.shape[2:]).clone()
        for row in range(len(levels)):
            if rng.random() < self.recipe.pinned_share:
                levels[row, :, 0] *= 0.0 if rng.random() < 0.8 else rng.random()
        return levels

    def _context(self, batch: _Batch, rng: random.Random) -> Context:
        # One language a batch: captions of one script are of like length, and padding is paid for.
        language = "en" if rng.random() < self.recipe.english_share else rng.choice(LANGUAGES)
        texts = [self._caption(scene, language, rng) for scene in batch.scenes]
        tokens = self.tokenize(texts).to(self.device)
        with torch.no_grad():
            embeds = self.text(tokens)
        size = torch.tensor([[batch.video.height, batch.video.width, batch.video.frame_rate]], device=self.device).float()
        return Context(embeds, tokens.mask, size.expand(len(texts), -1))

    def _caption(self, scene: Scene, language: str, rng: random.Random) -> str:
        if rng.random() < self.recipe.caption_dropout:
            return ""
        return write_caption(scene, language=language, rng=rng, drop=rng.random() * self.recipe.attribute_drop).text


def _tokens(latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N C"]:
    return rearrange(latents, "b c t h w -> b (t h w) c")


def _open(recipe: FlowRecipe, clips: ClipSet, *, weights: Path) -> LatentCache:
    return open_cache(Path(recipe.cache), clips, weights=weights, device=recipe.device)
