"""what flows between stages: prompt embeds, latents, frames, videos, and the shapes they have

Tensors are on the CPU when a value travels; a stage moves them to its device.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from aiprod_components.errors import InvalidRequestError


@dataclass(frozen=True)
class VideoShape:
    """The size of a video: frames, pixels, frames per second."""

    num_frames: int
    height: int
    width: int
    frame_rate: float


@dataclass(frozen=True)
class LatentGrid:
    """How a family's VAEs compress: pixels per latent in time and space, a latent's channels; audio latents per second (0: no sound)."""

    time: int
    space: int
    channels: int
    audio_rate: float = 0.0

    def shape_of(self, video: VideoShape) -> tuple[int, int, int, int]:
        """Channels, latent frames, latent height and width of a video that is on the grid."""
        return (self.channels, (video.num_frames - 1) // self.time + 1, video.height // self.space, video.width // self.space)

    def latent_frame(self, frame: int) -> int:
        """The latent frame that holds video frame `frame`: the first alone, then groups of `time`."""
        return 0 if frame == 0 else (frame - 1) // self.time + 1

    def frames_in(self, latent_frames: int) -> int:
        """The video frames of a clip that has so many latent frames."""
        return (latent_frames - 1) * self.time + 1

    def tokens_of(self, video: VideoShape) -> int:
        _, frames, height, width = self.shape_of(video)
        return frames * height * width

    def audio_tokens_of(self, video: VideoShape) -> int:
        """However short the video is, there is something to be heard of it, where there is sound."""
        return max(round(video.num_frames / video.frame_rate * self.audio_rate), 1) if self.audio_rate else 0

    def audio_latent(self, frame: int, *, frame_rate: float) -> int:
        """The audio latent that begins where video frame `frame` does, or nearest to that."""
        return round(frame / frame_rate * self.audio_rate)

    def check(self, video: VideoShape, *, space_multiple: int) -> None:
        """Raises InvalidRequestError, naming the nearest valid value, when `video` is not on the grid."""
        if (video.num_frames - 1) % self.time:
            nearest = round((video.num_frames - 1) / self.time) * self.time + 1
            raise InvalidRequestError(
                f"num_frames must be 1 + a multiple of {self.time}, got {video.num_frames}; nearest is {nearest}", field="num_frames"
            )
        for field, value in (("height", video.height), ("width", video.width)):
            if value % space_multiple:
                nearest = max(round(value / space_multiple), 1) * space_multiple
                raise InvalidRequestError(
                    f"{field} must be a multiple of {space_multiple} for this pipeline, got {value}; nearest is {nearest}", field=field
                )


@dataclass(frozen=True)
class Picture:
    """An encoded still image as it was uploaded; it is known by the hash of its content."""

    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def __repr__(self) -> str:
        return f"Picture({len(self.data)} bytes, sha256 {self.digest[:12]})"


@dataclass(frozen=True)
class FootageShape:
    """The size of a video as it is shown, upright and with square pixels; its length in seconds and its frames per second.

    `sound_seconds` is how long its sound is, 0 where it has none.
    """

    width: int
    height: int
    seconds: float
    frame_rate: float
    sound_seconds: float = 0.0


@dataclass(frozen=True)
class Footage:
    """An encoded video as it was uploaded; it is known by the hash of its content. `shape` is what a check found, None before any."""

    data: bytes
    shape: FootageShape | None = dataclasses.field(default=None, compare=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def __repr__(self) -> str:
        return f"Footage({len(self.data)} bytes, sha256 {self.digest[:12]})"


@dataclass(frozen=True)
class Sound:
    """An encoded sound as it was uploaded; it is known by the hash of its content. `seconds` is what a check found, None before any."""

    data: bytes
    seconds: float | None = dataclasses.field(default=None, compare=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def __repr__(self) -> str:
        return f"Sound({len(self.data)} bytes, sha256 {self.digest[:12]})"


MEDIA = (Picture, Footage, Sound)  # what is uploaded


@dataclass(frozen=True)
class PromptEmbeds:
    """A prompt as the denoisers read it; with guidance, also the prompt to steer away from; for sound, where the family makes it, apart."""

    embeds: Float[Tensor, "B S E"]
    mask: Bool[Tensor, "B S"]
    negative_embeds: Float[Tensor, "B N E"] | None = None
    negative_mask: Bool[Tensor, "B N"] | None = None
    audio_embeds: Float[Tensor, "B S A"] | None = None
    negative_audio_embeds: Float[Tensor, "B N A"] | None = None

    def to(self, device: torch.device) -> "PromptEmbeds":
        """The same on a device."""
        parts: dict[str, Tensor | None] = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class Latents:
    """Normalized video latents, and audio latents as the audio VAE reads them, where the family makes sound.

    `noise_state` is where the generator of stage 1's noise stands, for a family whose stage 2 draws on from there.
    """

    video: Float[Tensor, "B C T H W"]
    audio: Float[Tensor, "B A L F"] | None = None
    noise_state: UInt8[Tensor, "N"] | None = None


@dataclass(frozen=True)
class AudioLatents:
    """Sound alone, as the audio VAE has it."""

    audio: Float[Tensor, "B A L F"]


@dataclass(frozen=True)
class Waveform:
    """Sound: samples from -1 to 1, so many a second."""

    samples: Float[Tensor, "B channels N"]
    sample_rate: int


@dataclass(frozen=True)
class Frames:
    """Raw frames. They stay inside the stage that made them."""

    pixels: UInt8[Tensor, "B T H W 3"]
    frame_rate: float


@dataclass(frozen=True)
class Video:
    """An encoded video (mp4), still (PNG, WebP) or sound alone (m4a, wav), whose width and height are 0.

    The digest is that of the raw frames, or of the samples of a sound alone: equal frames, equal digest.
    """

    data: bytes
    shape: VideoShape
    frames_digest: str
    media_type: str = "video/mp4"


def exact_rate(frame_rate: float) -> Fraction:
    """The frame rate as containers store it: 23.976 is 24000/1001."""
    ntsc = [Fraction(1000 * whole, 1001) for whole in (24, 30, 60, 120)]
    return next((rate for rate in ntsc if abs(rate - frame_rate) < 1e-3), Fraction(frame_rate).limit_denominator(1001))
