"""Denoise or Refine -> noise, pins, guides -> the state of one request between two steps"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import Denoise, Guide, LoraUse, Pin, Refine, Sampling
from aiprod_components.diffusion.conditioning import Appended, Conditioning, add_noise, pin_latents
from aiprod_components.diffusion.noise import draw_noise
from aiprod_components.diffusion.positions import guide_positions
from aiprod_components.diffusion.samplers import SAMPLERS, Memory, Step
from aiprod_components.values import LatentGrid, Latents, PromptEmbeds, VideoShape


@dataclass(frozen=True)
class FlowState:
    """One request between two steps. `guide_noise` is what makes a guide below strength 1 as noisy as the latents it guides.

    `velocity` is what the network said where the last step began, guided; what the sampler makes of it may have noise of its own.
    """

    x: Float[Tensor, "1 C T H W"]
    done: int
    sampling: Sampling
    purpose: str
    prompt_embeds: PromptEmbeds
    conditioning: Conditioning
    guides: Appended
    guide_noise: Float[Tensor, "1 N C"]
    video: VideoShape
    loras: tuple[LoraUse, ...]
    memory: Memory | None = None
    momentum: Float[Tensor, "1 C T H W"] | None = None
    velocity: Float[Tensor, "1 C T H W"] | None = None

    @property
    def total(self) -> int:
        return self.sampling.num_inference_steps

    @property
    def sigma(self) -> float:
        """The noise level that the next step starts from."""
        return self.sampling.sigmas[self.done]

    def levels(self, step: int) -> Float[Tensor, "1 1 T H W"]:
        """The noise level of every position at the boundary before `step`."""
        return self.conditioning.freedom * self.sampling.sigmas[step]

    def noisy_guides(self, levels: Float[Tensor, "1 1 T H W"]) -> Appended:
        """The guides as the network sees them beside latents at these levels; `freedom` is their noise level."""
        sigma = levels.max() / self.conditioning.freedom.max().clamp(min=1e-6)  # of a position that is wholly free
        level = self.guides.freedom * sigma
        values = add_noise(self.guides.values, noise=self.guide_noise, sigma=rearrange(level, "b n -> b n 1"))
        return replace(self.guides, values=values, freedom=level)

    def walk(self) -> Step:
        """The next step, as the questions that its sampler asks."""
        return SAMPLERS[self.sampling.sampler](
            self.x,
            sigma=self.levels(self.done),
            next_sigma=self.levels(self.done + 1),
            memory=self.memory,
            draw_noise=lambda: self._noise(f"step {self.done}").to(self.x.device),
        )

    def _noise(self, moment: str) -> Float[Tensor, "1 C T H W"]:
        return draw_noise(tuple(self.x.shape), seed=self.sampling.seed, purpose=f"{self.purpose} {moment}")


def start_flow(call: Denoise | Refine, *, grid: LatentGrid, device: torch.device) -> FlowState:
    """Noise (over a draft, in stage 2) at the first sigma; pinned positions start as clean as they are strong."""
    draft = cast(Latents, call.latents).video if isinstance(call, Refine) else torch.zeros(1, *grid.shape_of(call.video))
    purpose = "refine" if isinstance(call, Refine) else "denoise"
    sampling = call.sampling
    conditioning = pin_latents(draft, [_placed(pin, grid=grid) for pin in call.pins])
    noise = draw_noise(tuple(draft.shape), seed=sampling.seed, purpose=purpose)
    x = add_noise(conditioning.clean, noise=noise, sigma=conditioning.freedom * sampling.sigmas[0])
    guides = _beside(call.guides, video=call.video, grid=grid)
    guide_noise = draw_noise(tuple(guides.values.shape), seed=sampling.seed, purpose=f"{purpose} guides")
    return FlowState(
        x=x.to(device),
        done=0,
        sampling=sampling,
        purpose=purpose,
        prompt_embeds=cast(PromptEmbeds, call.prompt_embeds).to(device),
        conditioning=Conditioning(conditioning.clean.to(device), conditioning.freedom.to(device)),
        guides=Appended(guides.values.to(device), guides.positions.to(device), guides.freedom.to(device)),
        guide_noise=guide_noise.to(device),
        video=call.video,
        loras=call.loras,
    )


def _placed(pin: Pin, *, grid: LatentGrid) -> tuple[Tensor, int, float]:
    first, behind = pin.part or (0, None)
    return cast(Latents, pin.latents).video[:, :, first:behind], grid.latent_frame(pin.frame), pin.strength


def _beside(guides: tuple[Guide, ...], *, video: VideoShape, grid: LatentGrid) -> Appended:
    """Guides as tokens, in their order."""
    values = [rearrange(cast(Latents, guide.latents).video, "1 c t h w -> 1 (t h w) c") for guide in guides]
    positions = [guide_positions(guide.video, video=video, frame=guide.frame, grid=grid) for guide in guides]
    freedom = [torch.full((1, tokens.shape[1]), 1 - guide.strength) for guide, tokens in zip(guides, values, strict=True)]
    return Appended(
        torch.cat([torch.zeros(1, 0, grid.channels), *values], dim=1),
        torch.cat([torch.zeros(0, 3), *positions]).unsqueeze(0),
        torch.cat([torch.zeros(1, 0), *freedom], dim=1),
    )
