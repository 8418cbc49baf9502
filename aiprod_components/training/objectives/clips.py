"""caches, captions, stills -> the clips of one step: what every objective of the backbone learns from"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from aiprod_components.diffusion.conditioning import Appended
from aiprod_components.diffusion.positions import guide_positions
from aiprod_components.media.controls import CONTROLS
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.captions import LANGUAGES, write_caption
from aiprod_components.miniature.world import Scene, SceneMix
from aiprod_components.models.backbone import Context
from aiprod_components.models.checkpoint import load_model
from aiprod_components.models.text_encoder import TextEncoder, TextEncoderConfig, make_tokenizer
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.training.config import Strict
from aiprod_components.training.dataset import FIRST_HELD_OUT_SEED, FRAME_RATE, clips_of, scenes_of, stills_of
from aiprod_components.training.latent_cache import ClipSet, LatentCache, open_cache
from aiprod_components.values import LatentGrid, VideoShape

GRID = LatentGrid(time=4, space=16, channels=64)


class CachedClips(Strict):
    """Clips of one kind, and how often and how many of them a step takes.

    `shown` frames of each are used, which is a shorter clip, since no latent looks ahead. `half` are the cached ones of half the size,
    for drafts.
    """

    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt
    batch: PositiveInt
    weight: PositiveFloat
    mix: SceneMix = SceneMix()
    shown: PositiveInt | None = None
    half: NonNegativeInt = 0

    @property
    def video(self) -> VideoShape:
        return VideoShape(self.shown or self.num_frames, self.size, self.size, FRAME_RATE)


class Captions(Strict):
    """How scenes are told: one language a step, a share of the clips without words, others with things left out."""

    english_share: float = Field(ge=0, le=1)
    dropout: float = Field(ge=0, le=1)
    attribute_drop: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Batch:
    """The clips of a step, told and shown."""

    kind: CachedClips
    rows: list[int]
    latents: Float[Tensor, "B C T H W"]
    scenes: list[Scene]


class ClipSource:
    """Draws batches from the caches. `weights` is the folder of the networks that made them."""

    def __init__(self, clips: list[CachedClips], *, cache: str, weights: Path, device: str) -> None:
        self.clips, self.weights, self.device = clips, weights, device
        self._folder = Path(cache)
        self._opened: dict[ClipSet, LatentCache] = {}
        self.caches = {kind: self._open(ClipSet(kind.size, kind.num_frames, kind.count, kind.mix)) for kind in clips}

    def draw(self, rng: random.Random) -> Batch:
        kind = rng.choices(self.clips, weights=[clips.weight for clips in self.clips])[0]
        cache = self.caches[kind]
        rows = [rng.randrange(len(cache)) for _ in range(kind.batch)]
        latents = cache.latents[rows, :, : GRID.shape_of(kind.video)[1]]
        return Batch(kind, rows, latents.float(), cache.scenes(rows))

    def halves(self, kind: CachedClips) -> LatentCache:
        """The same clips at half their size."""
        return self._open(ClipSet(kind.size // 2, kind.num_frames, kind.half, kind.mix))

    def controls(self, kind: CachedClips, control: str, *, downscale: int) -> LatentCache:
        """What a control sees in the clips of a kind. Made when it is first asked for: ask before training, which runs under autocast."""
        return self._open(ClipSet(kind.size // downscale, kind.num_frames, kind.count, kind.mix, control=control))

    def controlled(self, batch: Batch, *, control: str, downscale: int, vae: VideoVAE) -> Float[Tensor, "B C T H W"]:
        """What a control sees in the batch's clips, encoded: from a cache, but for clips that are in none."""
        kind = batch.kind
        if batch.rows[0] < FIRST_HELD_OUT_SEED:
            return self.controls(kind, control, downscale=downscale).latents[batch.rows, :, : batch.latents.shape[2]].float()
        frames = clips_of(batch.scenes, num_frames=kind.num_frames, size=kind.size // downscale)
        return self._encoded(CONTROLS[control](frames), vae=vae)

    def held_out(self, kind: CachedClips, *, vae: VideoVAE) -> Batch:
        """Clips that training never sees."""
        rows = list(range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + kind.batch))
        scenes = scenes_of(rows, mix=kind.mix)
        frames = clips_of(scenes, num_frames=kind.num_frames, size=kind.size)
        return Batch(kind, rows, self._encoded(frames, vae=vae), scenes)

    @torch.no_grad()
    def _encoded(self, frames: UInt8[Tensor, "B T H W 3"], *, vae: VideoVAE) -> Float[Tensor, "B C t h w"]:
        return vae.encode(to_unit(frames).to(self.device)).cpu()

    def _open(self, clips: ClipSet) -> LatentCache:
        if clips not in self._opened:
            self._opened[clips] = open_cache(self._folder, clips, weights=self.weights, device=self.device)
        return self._opened[clips]


class Teller:
    """Scenes -> captions -> what the backbone reads."""

    def __init__(self, captions: Captions, *, weights: Path, device: torch.device) -> None:
        self._captions, self._device = captions, device
        self._encoder = load_model(TextEncoder, TextEncoderConfig, weights / "text_encoder").to(device)
        self._tokenize = make_tokenizer(self._encoder.config)

    def tell(self, batch: Batch, rng: random.Random) -> Context:
        # One language a batch: captions of one script are of like length, and padding is paid for.
        language = "en" if rng.random() < self._captions.english_share else rng.choice(LANGUAGES)
        return self.read([self._caption(scene, language, rng) for scene in batch.scenes], video=batch.kind.video)

    def read(self, texts: list[str], *, video: VideoShape) -> Context:
        tokens = self._tokenize(texts).to(self._device)
        with torch.no_grad():
            embeds = self._encoder(tokens)
        size = torch.tensor([[video.height, video.width, video.frame_rate]], device=self._device).float()
        return Context(embeds, tokens.mask, size.expand(len(texts), -1))

    def _caption(self, scene: Scene, language: str, rng: random.Random) -> str:
        if rng.random() < self._captions.dropout:
            return ""
        return write_caption(scene, language=language, rng=rng, drop=rng.random() * self._captions.attribute_drop).text


def encode_stills(vae: VideoVAE, batch: Batch, *, frames: list[int], device: torch.device) -> Appended:
    """Some frames of every clip, each encoded as a picture, at their places in space and time."""
    pixels = rearrange(stills_of(batch.scenes, frames=frames, size=batch.kind.size), "b k h w c -> (b k) 1 h w c")
    with torch.no_grad():
        latents = vae.encode(to_unit(pixels).to(device)).float().cpu()
    values = rearrange(latents, "(b k) c 1 h w -> b (k h w) c", k=len(frames))
    video = batch.kind.video
    still = replace(video, num_frames=1)
    positions = torch.cat([guide_positions(still, video=video, frame=frame, grid=GRID) for frame in frames])
    return clean_guides(values, positions)


def clean_guides(values: Float[Tensor, "B N C"], positions: Float[Tensor, "N 3"]) -> Appended:
    """Tokens without noise, at the same places in every clip."""
    return Appended(values, repeat(positions, "n c -> b n c", b=len(values)), torch.zeros(values.shape[:2]))


def load_vae(weights: Path, *, device: torch.device) -> VideoVAE:
    return load_model(VideoVAE, VideoVAEConfig, weights / "vae").to(device)
