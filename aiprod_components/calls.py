"""THE VOCABULARY: every call a pipeline can make, on one page

prompt --EncodePrompt--> prompt embeds --Denoise--> latents --Upsample--> latents --Refine--> latents --DecodeVideo--> video
picture --EncodePicture--> latents of one frame, pinned in Denoise and Refine
"""

from dataclasses import dataclass
from typing import ClassVar

from aiprod_components.plan import Call, Input, Work
from aiprod_components.values import LatentGrid, Latents, Picture, PromptEmbeds, Video, VideoShape

FLOAT = 4  # bytes of a number in the latents that travel
EMBED_BYTES = 256 * FLOAT  # of one token of a prompt
PIXELS_PER_BYTE = 50  # of an mp4, about


@dataclass(frozen=True)
class Guidance:
    """How predictions with and without the prompt are combined; a scale of 1 needs no second prediction."""

    scale: float = 1.0

    @property
    def passes(self) -> int:
        return 1 if self.scale == 1.0 else 2


@dataclass(frozen=True)
class Pin:
    """Latents held in place from `frame` on: wholly at strength 1, not at all at 0."""

    latents: Input[Latents]
    frame: int
    strength: float


@dataclass(frozen=True)
class Sampling:
    """How noise becomes latents: noise levels falling to 0 (one step between each two), guidance, and the noise's seed."""

    sigmas: tuple[float, ...]
    guidance: Guidance
    seed: int

    @property
    def num_inference_steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def network_calls(self) -> int:
        return self.num_inference_steps * self.guidance.passes


@dataclass(frozen=True)
class EncodePrompt(Call[PromptEmbeds]):
    """Prompt (and, for guidance, the prompt to steer away from) -> prompt embeds."""

    stage: ClassVar[str] = "text_encoder"
    prompt: str
    negative_prompt: str | None

    def work(self, grid: LatentGrid) -> Work:
        texts = [self.prompt] if self.negative_prompt is None else [self.prompt, self.negative_prompt]
        tokens = sum(len(text.encode()) + 1 for text in texts)  # a byte each at most, and the end of the text
        return Work(len(texts), tokens, tokens * EMBED_BYTES)


@dataclass(frozen=True)
class EncodePicture(Call[Latents]):
    """A picture, cropped and resized to height x width -> latents of one frame."""

    stage: ClassVar[str] = "vae_encoder"
    picture: Picture
    height: int
    width: int

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, VideoShape(1, self.height, self.width, 1.0), network_calls=1)


@dataclass(frozen=True)
class Denoise(Call[Latents]):
    """Stage 1: noise -> latents that show the prompt."""

    stage: ClassVar[str] = "denoiser"
    prompt_embeds: Input[PromptEmbeds]
    video: VideoShape
    sampling: Sampling
    pins: tuple[Pin, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, self.video, network_calls=self.sampling.network_calls)


@dataclass(frozen=True)
class Upsample(Call[Latents]):
    """Latents -> latents of twice the height and width; `video` is the size of the result."""

    stage: ClassVar[str] = "upsampler"
    latents: Input[Latents]
    video: VideoShape

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, self.video, network_calls=1)


@dataclass(frozen=True)
class Refine(Call[Latents]):
    """Stage 2: latents, noised to the first sigma -> latents with the detail of their size."""

    stage: ClassVar[str] = "refiner"
    prompt_embeds: Input[PromptEmbeds]
    latents: Input[Latents]
    video: VideoShape
    sampling: Sampling
    pins: tuple[Pin, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, self.video, network_calls=self.sampling.network_calls)


@dataclass(frozen=True)
class DecodeVideo(Call[Video]):
    """Latents -> frames -> mp4."""

    stage: ClassVar[str] = "vae_decoder"
    latents: Input[Latents]
    video: VideoShape

    def work(self, grid: LatentGrid) -> Work:
        pixels = self.video.num_frames * self.video.height * self.video.width
        return Work(1, grid.tokens_of(self.video), pixels // PIXELS_PER_BYTE)


def _latent_work(grid: LatentGrid, video: VideoShape, *, network_calls: int) -> Work:
    tokens = grid.tokens_of(video)
    return Work(network_calls, tokens, tokens * grid.channels * FLOAT)
