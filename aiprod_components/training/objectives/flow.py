"""cached latents, captions -> noisy tokens -> velocity: what the denoiser and the refiner learn

Rectified flow with logit-normal noise levels (Esser et al. 2024). A share of the clips has its first latent frame
pinned, wholly or in part, so that image conditioning is learnt with the rest; what is pinned whole is not in the loss.
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
from aiprod_components.training.config import BaseRecipe, Strict
from aiprod_components.training.dataset import FRAME_RATE, step_rng
from aiprod_components.training.latent_cache import LatentCache, open_cache
from aiprod_components.values import LatentGrid, VideoShape


class CachedClips(Strict):
    """Clips of one size, and how often and how many of them a step takes."""

    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt
    batch: PositiveInt
    weight: PositiveFloat


class NoiseLevels(Strict):
    """sigma = sigmoid(normal(mean, std)), kept below `highest`."""

    mean: float
    std: PositiveFloat
    highest: float = Field(default=1.0, gt=0, le=1)


class FlowRecipe(BaseRecipe):
    component: Literal["denoiser", "refiner"]
    model: BackboneConfig
    start_from: str | None  # another component's weights to go on from
    cache: str
    clips: list[CachedClips]
    mix: SceneMix
    sigmas: NoiseLevels
    english_share: float = Field(ge=0, le=1)
    caption_dropout: float = Field(ge=0, le=1)
    attribute_drop: float = Field(ge=0, le=1)
    pinned_share: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class _Batch:
    latents: Float[Tensor, "B C T H W"]
    scenes: list[Scene]
    video: VideoShape


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
        self.caches = {(clips.size, clips.num_frames): self._open(clips) for clips in recipe.clips}

    def loss(self, step: int) -> dict[str, Tensor]:
        rng = step_rng(self.recipe.seed, step)
        batch = self._batch(rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        noise = torch.randn(batch.latents.shape, generator=generator)
        levels = self._levels(batch, rng, generator)
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

    def _open(self, clips: CachedClips) -> LatentCache:
        return open_cache(
            Path(self.recipe.cache),
            weights=self.output,
            count=clips.count,
            num_frames=clips.num_frames,
            size=clips.size,
            mix=self.recipe.mix,
            device=self.recipe.device,
        )

    def _batch(self, rng: random.Random) -> _Batch:
        clips = rng.choices(self.recipe.clips, weights=[clips.weight for clips in self.recipe.clips])[0]
        cache = self.caches[clips.size, clips.num_frames]
        rows = [rng.randrange(len(cache)) for _ in range(clips.batch)]
        video = VideoShape(clips.num_frames, clips.size, clips.size, FRAME_RATE)
        return _Batch(cache.latents[rows].float(), cache.scenes(rows), video)

    def _levels(self, batch: _Batch, rng: random.Random, generator: torch.Generator) -> Float[Tensor, "B 1 T H W"]:
        recipe = self.recipe.sigmas
        drawn = torch.sigmoid(recipe.mean + recipe.std * torch.randn(len(batch.latents), generator=generator)) * recipe.highest
        levels = rearrange(drawn, "b -> b 1 1 1 1").expand(-1, 1, *batch.latents.shape[2:]).clone()
        for row in range(len(levels)):
            if rng.random() < self.recipe.pinned_share:
                levels[row, :, 0] *= 0.0 if rng.random() < 0.8 else rng.random()
        return levels

    def _context(self, batch: _Batch, rng: random.Random) -> Context:
        # One language a batch: captions of one script are of like length, and padding is paid for.
        language = "en" if rng.random() < self.recipe.english_share else rng.choice(LANGUAGES)
        texts = [self._caption(scene, language, rng) for scene in batch.scenes]
        tokens = self.tokenize(texts)
        with torch.no_grad():
            embeds = self.text(type(tokens)(*(part.to(self.device) for part in tokens)))
        size = torch.tensor([[batch.video.height, batch.video.width, batch.video.frame_rate]], device=self.device).float()
        return Context(embeds, tokens.mask.to(self.device), size.expand(len(texts), -1))

    def _caption(self, scene: Scene, language: str, rng: random.Random) -> str:
        if rng.random() < self.recipe.caption_dropout:
            return ""
        return write_caption(scene, language=language, rng=rng, drop=rng.random() * self.recipe.attribute_drop).text


def _tokens(latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N C"]:
    return rearrange(latents, "b c t h w -> b (t h w) c")
