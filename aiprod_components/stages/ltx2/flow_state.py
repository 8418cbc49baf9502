"""Denoise or Refine -> noise, pins, guides -> the joint state of pictures and sound between two steps

As diffusers' pipelines begin: a draft from text, or from a picture that its first frame is (`LTX2ImageToVideoPipeline`), draws noise on the
grid; everything else (`LTX2ConditionPipeline`, and stage 2) draws it token by token, guides included. The generator goes on from stage 1 to
stage 2, as `noise_state`.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from einops import repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import Denoise, Guide, LoraUse, Refine, Sampling, SoundPin
from aiprod_components.diffusion.samplers import DRAWING, SAMPLERS, Memory, Query, Step, advance
from aiprod_components.stages.ltx2.cache import Remembered
from aiprod_components.stages.ltx2.latents import Normalization, audio_tokens_of, tokens_of
from aiprod_components.values import AudioLatents, LatentGrid, Latents, PromptEmbeds, VideoShape

AUDIO_CHANNELS, AUDIO_BINS = 8, 16  # of audio latents


@dataclass(frozen=True)
class Held:
    """How much of each token is held (1: wholly), and what it is held to."""

    strength: Float[Tensor, "1 S 1"]
    clean: Float[Tensor, "1 S C"]


@dataclass(frozen=True)
class Stream:
    """Tokens of pictures or of sound on their way, and what their sampler remembers."""

    x: Float[Tensor, "1 S C"]
    memory: Memory | None = None
    momentum: Float[Tensor, "1 S C"] | None = None

    def walk(self, sampling: Sampling, done: int, *, held: Held | None, generator: torch.Generator) -> Step:
        """The next step, as the questions that its sampler asks."""
        sigma, following = (torch.tensor(level, device=self.x.device) for level in sampling.sigmas[done : done + 2])
        if held is not None and sampling.sampler in DRAWING:
            return self._walk_at_own_levels(sampling, sigma, following, free=1 - held.strength, generator=generator)
        return self._step(sampling, sigma, following, generator=generator)

    def _step(self, sampling: Sampling, sigma: Tensor, following: Tensor, *, generator: torch.Generator) -> Step:
        return SAMPLERS[sampling.sampler](
            self.x,
            sigma=sigma,
            next_sigma=following,
            memory=self.memory,
            draw_noise=lambda: _draw(self.x.shape, generator, dtype=self.x.dtype).to(self.x.device),
        )

    def _walk_at_own_levels(
        self, sampling: Sampling, sigma: Tensor, following: Tensor, *, free: Float[Tensor, "1 S 1"], generator: torch.Generator
    ) -> Step:
        """Every token gets fresh noise as its own level has it, so what is wholly held gets none."""
        velocity = yield Query(self.x, sigma)
        own = torch.where(free > 0, velocity / free, 0.0)
        return advance(self._step(sampling, sigma * free, following * free, generator=generator), velocity=lambda x, level: own)


@dataclass(frozen=True)
class JointState:
    """One request between two steps. `held` and `held_sound` are None where nothing is; guides are the tokens behind those of the grid.

    `positions` are where tokens are, in seconds and pixels, from and to. Of a sound alone pictures are not to be heard in any pass.
    """

    pictures: Stream
    sound: Stream
    done: int
    sampling: Sampling
    prompt_embeds: PromptEmbeds
    held: Held | None
    held_sound: Held | None
    positions: Float[Tensor, "1 3 S 2"]
    audio_positions: Float[Tensor, "1 1 L 2"]
    video: VideoShape
    loras: tuple[LoraUse, ...]
    noise_state: UInt8[Tensor, "N"]
    remembered: Remembered = field(default_factory=Remembered)
    is_sound_alone: bool = False

    @property
    def total(self) -> int:
        return self.sampling.num_inference_steps

    @property
    def sigma(self) -> float:
        """The noise level that the next step starts from."""
        return self.sampling.sigmas[self.done]

    @property
    def generator(self) -> torch.Generator:
        generator = torch.Generator()
        generator.set_state(self.noise_state)
        return generator


def start_joint(
    call: Denoise | Refine,
    *,
    grid: LatentGrid,
    normalization: Normalization,
    positions: Float[Tensor, "1 3 S 2"],
    audio_positions: Float[Tensor, "1 1 L 2"],
    device: torch.device,
) -> JointState:
    """`normalization` is that of sound; positions are those of the grid alone, guides bring their own."""
    draft = cast(Latents, call.latents) if isinstance(call, Refine) else None
    generator = _generator(call.sampling.seed, draft)
    placed, held = _placed(call, grid=grid, draft=draft)
    sigma = call.sampling.sigmas[0]
    x = _noised(placed, held, sigma, generator=generator, on_grid=grid.shape_of(call.video) if _draws_on_grid(call) else None)
    held_sound = _held_sound(call.sound_pins, length=grid.audio_tokens_of(call.video), normalization=normalization)
    if draft is None or draft.audio is None:
        sound = _noise_of_sound(grid.audio_tokens_of(call.video), generator=generator, on_grid=_draws_on_grid(call))
    else:
        clean = normalization.done(audio_tokens_of(draft.audio))
        sound = (sigma * _draw(clean.shape, generator, dtype=clean.dtype) + (1 - sigma) * clean).float()
    if held_sound is not None:
        sound = held_sound.clean * held_sound.strength + sound * (1 - held_sound.strength)
    coordinates = torch.cat([positions, *(guide_positions(guide, video=call.video, grid=grid).to(device) for guide in call.guides)], dim=2)
    return JointState(
        pictures=Stream(x.to(device)),
        sound=Stream(sound.to(device)),
        done=0,
        sampling=call.sampling,
        prompt_embeds=cast(PromptEmbeds, call.prompt_embeds).to(device),
        held=_on(held, device),
        held_sound=_on(held_sound, device),
        positions=coordinates,
        audio_positions=audio_positions,
        video=call.video,
        loras=call.loras,
        noise_state=generator.get_state(),
    )


def _generator(seed: int, draft: Latents | None) -> torch.Generator:
    generator = torch.Generator().manual_seed(seed)
    if draft is not None and draft.noise_state is not None:
        generator.set_state(draft.noise_state)
    return generator


def _draws_on_grid(call: Denoise | Refine) -> bool:
    return isinstance(call, Denoise) and not call.guides and all(pin.strength == 1 for pin in call.pins)


def _placed(call: Denoise | Refine, *, grid: LatentGrid, draft: Latents | None) -> tuple[Float[Tensor, "1 S C"], Held | None]:
    """The tokens that noise is put over, guides behind those of the grid; and what of them is held."""
    latents = torch.zeros(1, *grid.shape_of(call.video)) if draft is None else draft.video
    tokens = tokens_of(latents)
    guides = [tokens_of(cast(Latents, guide.latents).video).to(tokens.dtype) for guide in call.guides]
    tokens = torch.cat([tokens, *guides], dim=1)
    if not call.pins and not call.guides:
        return tokens, None
    clean, strength = torch.zeros_like(tokens), torch.zeros_like(tokens[:, :, :1])
    frame = latents.shape[3] * latents.shape[4]
    for pin in call.pins:
        first, behind = pin.part or (0, None)
        pinned = tokens_of(cast(Latents, pin.latents).video[:, :, first:behind]).to(tokens.dtype)
        start = grid.latent_frame(pin.frame) * frame
        span = slice(start, start + pinned.shape[1])
        tokens[:, span], clean[:, span], strength[:, span] = pinned, pinned, pin.strength
    behind = tokens.shape[1] - sum(guide.shape[1] for guide in guides)
    for guide, values in zip(call.guides, guides, strict=True):
        span = slice(behind, behind + values.shape[1])
        clean[:, span], strength[:, span] = values, guide.strength
        behind += values.shape[1]
    return tokens, Held(strength, clean)


def _held_sound(pins: tuple[SoundPin, ...], *, length: int, normalization: Normalization) -> Held | None:
    """Sound that is held at a strength is as noisy as what is left of it, like the pictures."""
    if not pins:
        return None
    strength, clean = torch.zeros(1, length, 1), torch.zeros(1, length, AUDIO_CHANNELS * AUDIO_BINS)
    for pin in pins:
        audio = cast(Latents | AudioLatents, pin.sound).audio
        assert audio is not None, "what is held has sound"
        pinned = normalization.done(audio_tokens_of(audio.float()[:, :, slice(*pin.part)]))
        span = slice(pin.at, pin.at + pinned.shape[1])
        strength[:, span], clean[:, span] = pin.strength, pinned
    return Held(strength, clean)


def _on(held: Held | None, device: torch.device) -> Held | None:
    return None if held is None else Held(held.strength.to(device), held.clean.to(device))


def _noised(
    tokens: Float[Tensor, "1 S C"],
    held: Held | None,
    sigma: float,
    *,
    generator: torch.Generator,
    on_grid: tuple[int, int, int, int] | None,
) -> Float[Tensor, "1 S C"]:
    """In float32, of noise in the tokens' own precision."""
    if on_grid is not None:
        noise = tokens_of(_draw((1, *on_grid), generator, dtype=torch.float32))
        return noise if held is None else held.clean * held.strength + noise * (1 - held.strength)
    noise = _draw(tokens.shape, generator, dtype=tokens.dtype)
    if held is None:
        return (sigma * noise + (1 - sigma) * tokens).float()
    level = (1.0 - held.strength) * sigma
    return (noise * level + tokens * (1 - level)).float()


def _noise_of_sound(length: int, *, generator: torch.Generator, on_grid: bool) -> Float[Tensor, "1 L D"]:
    if on_grid:
        return audio_tokens_of(_draw((1, AUDIO_CHANNELS, length, AUDIO_BINS), generator, dtype=torch.float32))
    return _draw((1, length, AUDIO_CHANNELS * AUDIO_BINS), generator, dtype=torch.float32)


def guide_positions(guide: Guide, *, video: VideoShape, grid: LatentGrid) -> Float[Tensor, "1 3 N 2"]:
    """Where a guide's tokens are, from its frame on: the first latent frame is one frame long; a smaller guide covers the same view."""
    _, frames, height, width = grid.shape_of(guide.video)
    steps = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (frames, height, width)), indexing="ij")
    begin = torch.stack([step.flatten() for step in steps])
    scale = torch.tensor([grid.time, grid.space, grid.space], dtype=torch.float32)
    bounds = torch.stack([begin, begin + 1], dim=-1) * repeat(scale, "d -> d 1 1")
    bounds[0] = ((bounds[0] + 1 - grid.time).clamp(min=0) + guide.frame) / video.frame_rate
    bounds[1:] *= video.height // guide.video.height
    return bounds.unsqueeze(0)


def _draw(shape: tuple[int, ...] | torch.Size, generator: torch.Generator, *, dtype: torch.dtype) -> Tensor:
    """Standard normal noise on the CPU, from where the generator stands."""
    return torch.randn(tuple(shape), generator=generator, dtype=dtype)
