"""THE VOCABULARY: every call a pipeline can make, on one page

prompt --EncodePrompt--> prompt embeds --Denoise--> latents --Upsample--> latents --Refine--> latents --DecodeVideo--> video
latents --DecodeAudio--> waveform, for DecodeVideo
prompt, prompts before it --EnhancePrompt--> prompt
picture --EncodePicture--> latents of one frame: pinned in Denoise and Refine, or a guide beside them
footage --EncodeFootage--> latents of a reference: a guide beside the latents
latents --EncodeTail--> latents of a clip's last frames, pinned at the start of the next clip
sound, footage --EncodeSound--> audio latents, pinned in Denoise and Refine; --ReadSound--> waveform, for DecodeVideo
prompt embeds --DenoiseSound--> audio latents --DecodeSound--> a sound alone
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from aiprod_components.plan import Call, Input, Ref, Work
from aiprod_components.values import AudioLatents, Footage, LatentGrid, Latents, Picture, PromptEmbeds, Sound, Video, VideoShape, Waveform

FLOAT = 4  # bytes of a number in the latents that travel
EMBED_BYTES = 256 * FLOAT  # of one token of a prompt
PIXELS_PER_BYTE = 50  # of an mp4, about
# Measured with the miniature on a CPU core: a token takes 0.17 ms through the denoiser, 0.7 through the VAE, 0.03 through the upsampler.
VAE_WEIGHT, UPSAMPLER_WEIGHT = 4.0, 0.2
AUDIO_WEIGHT = 4.0
AUDIO_LATENT_BYTES = 128 * FLOAT
SOUND_BYTES = 2 * 48_000 * FLOAT  # of a second, at most
SOUND_FILE_BYTES = {"m4a": 24_000, "wav": 2 * 48_000 * 2}  # the same, in a file
# An enhanced prompt is not known before it is there: at most so many bytes, written in so many tokens, after an instruction of so many.
ENHANCED_BYTES, ENHANCED_TOKENS, INSTRUCTION_BYTES = 4000, 512, 2500


Pass = Literal["conditional", "unconditional", "perturbed", "isolated"]


@dataclass(frozen=True)
class Projection:
    """Adaptive projected guidance (Sadat et al. 2024): what of the guidance lies along the prediction is taken `parallel` times.

    `threshold` bounds the guidance's root mean square (0: no bound); `momentum` below 0 works against the steps before.
    """

    parallel: float = 0.0
    threshold: float = 0.0
    momentum: float = -0.5


@dataclass(frozen=True)
class Guidance:
    """How predictions with the prompt, without it and with a part of the network left out are combined.

    `scale` is classifier-free guidance (1: none), `stg_scale` spatiotemporal skip guidance (0: none), whose pass leaves self-attention out
    in `stg_blocks`, `modality_scale` modality isolation guidance (1: none), whose pass keeps pictures and sound from seeing each other.
    `rescale` is how far the result's deviation is brought back to the prediction's. All of it holds at noise levels in `interval`, both
    ends included; outside of it the prediction with the prompt stands alone.
    """

    scale: float = 1.0
    rescale: float = 0.0
    stg_scale: float = 0.0
    stg_blocks: tuple[int, ...] = ()
    projection: Projection | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    modality_scale: float = 1.0

    @property
    def is_none(self) -> bool:
        """Whether the prediction with the prompt stands alone at every noise level."""
        return self.scale == self.modality_scale == 1.0 and self.stg_scale == 0.0

    def passes_at(self, sigma: float) -> tuple[Pass, ...]:
        """The predictions that a step from noise level `sigma` needs."""
        guided = self.interval[0] <= sigma <= self.interval[1]
        needed: dict[Pass, bool] = {
            "conditional": True,
            "unconditional": guided and self.scale != 1.0,
            "perturbed": guided and self.stg_scale != 0.0,
            "isolated": guided and self.modality_scale != 1.0,
        }
        return tuple(kind for kind, is_needed in needed.items() if is_needed)


@dataclass(frozen=True)
class Pin:
    """Latents held in place from `frame` on: wholly at strength 1, not at all at 0.

    `part` are the latent frames that are taken of them, the first and the one behind the last (None: all).
    """

    latents: Input[Latents]
    frame: int
    strength: float
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class SoundPin:
    """Sound held in place: of its audio latents those of `part`, from the audio latent `at` on; strength as that of a pin."""

    sound: Input[Latents] | Input[AudioLatents]
    at: int
    part: tuple[int, int]
    strength: float = 1.0


# Sampler -> how often it asks the network in a step; the last step, to 0, always asks once.
EVALUATIONS: dict[str, int] = {
    "euler": 1,
    "euler_ancestral": 1,
    "heun": 2,
    "dpmpp_2m": 1,
    "res_2s": 2,
    "gradient_estimation": 1,
}


@dataclass(frozen=True)
class Guide:
    """Latents beside the grid that the network looks at: a keyframe's picture, or a reference clip, from video frame `frame` on.

    `video` is their own size; a smaller one covers the same view. At strength 1 they are clean, below it as noisy as what is left.
    """

    latents: Input[Latents]
    video: VideoShape
    frame: int
    strength: float


@dataclass(frozen=True)
class LoraUse:
    """One of the family's LoRAs, at a scale."""

    name: str
    scale: float


@dataclass(frozen=True)
class Sampling:
    """How noise becomes latents: noise levels falling to 0, one step between each two; guidance; the noise's seed; who takes the steps.

    `audio_guidance` is that of the sound, where the family makes it.
    """

    sigmas: tuple[float, ...]
    guidance: Guidance
    seed: int
    sampler: str = "euler"
    audio_guidance: Guidance = Guidance()

    @property
    def num_inference_steps(self) -> int:
        return len(self.sigmas) - 1

    def passes_at(self, sigma: float) -> tuple[Pass, ...]:
        """The predictions, each of pictures and sound together, that a step from noise level `sigma` needs."""
        return tuple(dict.fromkeys(self.guidance.passes_at(sigma) + self.audio_guidance.passes_at(sigma)))

    @property
    def network_calls(self) -> int:
        *starts, last = (len(self.passes_at(sigma)) for sigma in self.sigmas[:-1])
        return sum(starts) * EVALUATIONS[self.sampler] + last


@dataclass(frozen=True)
class EnhancePrompt(Call[str]):
    """Prompt -> the same by the style guide, from a language model; after the prompts `before`, as what carries on from them."""

    stage: ClassVar[str] = "prompt_enhancer"
    prompt: Input[str]
    before: tuple[Input[str], ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        read = INSTRUCTION_BYTES + sum(_bytes_of(text) for text in (self.prompt, *self.before))
        return Work(1, read + ENHANCED_TOKENS, ENHANCED_BYTES)  # each position passes once: the network keeps what it has read


@dataclass(frozen=True)
class EncodePrompt(Call[PromptEmbeds]):
    """Prompt (and, for guidance, the prompt to steer away from) -> prompt embeds."""

    stage: ClassVar[str] = "text_encoder"
    prompt: Input[str]
    negative_prompt: str | None

    def work(self, grid: LatentGrid) -> Work:
        texts = [self.prompt] if self.negative_prompt is None else [self.prompt, self.negative_prompt]
        tokens = sum(_bytes_of(text) + 1 for text in texts)  # a byte each at most, and the end of the text
        return Work(len(texts), tokens, tokens * EMBED_BYTES)


@dataclass(frozen=True)
class EncodePicture(Call[Latents]):
    """A picture, cropped and resized to height x width -> latents of one frame.

    `antialias`: detail that the size cannot show is filtered out first.
    """

    stage: ClassVar[str] = "vae_encoder"
    weight: ClassVar[float] = VAE_WEIGHT
    picture: Picture
    height: int
    width: int
    antialias: bool = True

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, VideoShape(1, self.height, self.width, 1.0), network_calls=1)


@dataclass(frozen=True)
class EncodeFootage(Call[Latents]):
    """`video.num_frames` frames of an uploaded video from number `start` on, at the size and rate of `video` -> latents.

    With a `control` ("canny") what is encoded is that drawn from the frames.
    """

    stage: ClassVar[str] = "vae_encoder"
    weight: ClassVar[float] = VAE_WEIGHT
    footage: Footage
    start: int
    video: VideoShape
    control: str | None

    def work(self, grid: LatentGrid) -> Work:
        return _latent_work(grid, self.video, network_calls=1)


@dataclass(frozen=True)
class EncodeSound(Call[AudioLatents]):
    """What an uploaded sound, or the sound of footage, is while `video` is shown, from second `start` on -> audio latents."""

    stage: ClassVar[str] = "audio_encoder"
    weight: ClassVar[float] = AUDIO_WEIGHT
    sound: Sound | Footage
    start: float
    video: VideoShape

    def work(self, grid: LatentGrid) -> Work:
        tokens = grid.audio_tokens_of(self.video)
        return Work(1, tokens, tokens * AUDIO_LATENT_BYTES)


@dataclass(frozen=True)
class ReadSound(Call[Waveform]):
    """What an uploaded sound, or the sound of footage, is while `video` is shown: as it is, to be heard."""

    stage: ClassVar[str] = "audio_encoder"
    sound: Sound | Footage
    video: VideoShape

    def work(self, grid: LatentGrid) -> Work:
        return Work(1, grid.audio_tokens_of(self.video), int(self.video.num_frames / self.video.frame_rate * SOUND_BYTES))


@dataclass(frozen=True)
class EncodeTail(Call[Latents]):
    """The last frames of a clip as the beginning of the next: its last `latent_frames` decoded, and encoded as a clip of their own.

    The first latent frame of a clip is one frame alone, so latents cannot just be handed on.
    """

    stage: ClassVar[str] = "vae_encoder"
    weight: ClassVar[float] = VAE_WEIGHT
    latents: Input[Latents]
    video: VideoShape
    latent_frames: int

    def work(self, grid: LatentGrid) -> Work:
        kept = grid.tokens_of(replace(self.video, num_frames=grid.frames_in(self.latent_frames)))
        # Decoding looks back: the whole clip is decoded for its tail.
        return Work(2, grid.tokens_of(self.video), kept * grid.channels * FLOAT)


@dataclass(frozen=True)
class Denoise(Call[Latents]):
    """Stage 1: noise -> latents that show the prompt."""

    stage: ClassVar[str] = "denoiser"
    prompt_embeds: Input[PromptEmbeds]
    video: VideoShape
    sampling: Sampling
    pins: tuple[Pin, ...] = ()
    guides: tuple[Guide, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    sound_pins: tuple[SoundPin, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        return _sampling_work(grid, self.video, sampling=self.sampling, guides=self.guides)


@dataclass(frozen=True)
class DenoiseSound(Call[AudioLatents]):
    """Noise -> the audio latents of a sound alone, as long as `video` would be, which has no pixels. `sampling.guidance` is the sound's."""

    stage: ClassVar[str] = "denoiser"
    prompt_embeds: Input[PromptEmbeds]
    video: VideoShape
    sampling: Sampling
    loras: tuple[LoraUse, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        tokens = grid.audio_tokens_of(self.video)
        return Work(self.sampling.network_calls, tokens, tokens * AUDIO_LATENT_BYTES)


@dataclass(frozen=True)
class Upsample(Call[Latents]):
    """Latents -> latents of another size or frame rate, by one of the family's upsamplers; `video` is the size of the result."""

    stage: ClassVar[str] = "upsampler"
    weight: ClassVar[float] = UPSAMPLER_WEIGHT
    latents: Input[Latents]
    video: VideoShape
    network: str = "upsampler"

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
    guides: tuple[Guide, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    sound_pins: tuple[SoundPin, ...] = ()

    def work(self, grid: LatentGrid) -> Work:
        return _sampling_work(grid, self.video, sampling=self.sampling, guides=self.guides)


@dataclass(frozen=True)
class DecodeAudio(Call[Waveform]):
    """The audio of latents -> sound. Of clips that follow each other, so many audio latents were `heard` in the one before."""

    stage: ClassVar[str] = "audio_decoder"
    weight: ClassVar[float] = AUDIO_WEIGHT
    clips: tuple[Input[Latents], ...]
    video: VideoShape
    heard: tuple[int, ...] = (0,)

    def work(self, grid: LatentGrid) -> Work:
        seconds = self.video.num_frames / self.video.frame_rate
        return Work(len(self.clips), grid.audio_tokens_of(self.video) // len(self.clips), int(seconds * SOUND_BYTES))


@dataclass(frozen=True)
class DecodeSound(Call[Video]):
    """Audio latents -> sound -> an encoded file ("m4a" or "wav"), exactly as long as `video` would be."""

    stage: ClassVar[str] = "audio_decoder"
    weight: ClassVar[float] = AUDIO_WEIGHT
    audio: Input[AudioLatents]
    video: VideoShape
    container: str = "m4a"

    def work(self, grid: LatentGrid) -> Work:
        seconds = self.video.num_frames / self.video.frame_rate
        return Work(1, grid.audio_tokens_of(self.video), int(seconds * SOUND_FILE_BYTES[self.container]))


@dataclass(frozen=True)
class DecodeVideo(Call[Video]):
    """Latents -> frames -> an encoded file. Clips that follow each other begin with `overlap` frames of the one before, shown once.

    `video` is the size of the whole; `container` is "mp4", or for a single frame "png" or "webp"; `sound` (None: it is silent) is as long.
    """

    stage: ClassVar[str] = "vae_decoder"
    weight: ClassVar[float] = VAE_WEIGHT
    clips: tuple[Input[Latents], ...]
    video: VideoShape
    overlap: int = 0
    container: str = "mp4"
    sound: Input[Waveform] | None = None

    def work(self, grid: LatentGrid) -> Work:
        pixels = self.video.num_frames * self.video.height * self.video.width
        return Work(len(self.clips), grid.tokens_of(self.video) // len(self.clips), pixels // PIXELS_PER_BYTE)


def _sampling_work(grid: LatentGrid, video: VideoShape, *, sampling: Sampling, guides: tuple[Guide, ...]) -> Work:
    """Guides cost as much in every pass as latents do, and are not handed on."""
    work = _latent_work(grid, video, network_calls=sampling.network_calls)
    return replace(work, tokens=work.tokens + grid.audio_tokens_of(video) + sum(grid.tokens_of(guide.video) for guide in guides))


def _bytes_of(text: Input[str]) -> int:
    return ENHANCED_BYTES if isinstance(text, Ref) else len(text.encode())


def _latent_work(grid: LatentGrid, video: VideoShape, *, network_calls: int) -> Work:
    tokens = grid.tokens_of(video)
    return Work(network_calls, tokens, tokens * grid.channels * FLOAT)
