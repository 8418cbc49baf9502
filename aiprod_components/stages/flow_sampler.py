"""noise, pins, sigmas -> state -> one step for a batch of states -> latents: what the denoiser and the refiner share"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import Pin, Sampling
from aiprod_components.diffusion.conditioning import Conditioning, add_noise, pin_latents
from aiprod_components.diffusion.guiders import classifier_free
from aiprod_components.diffusion.noise import draw_noise
from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.diffusion.samplers import euler
from aiprod_components.models.backbone import Context, HybridBackbone, Tokens
from aiprod_components.values import LatentGrid, Latents, PromptEmbeds, VideoShape


@dataclass(frozen=True)
class FlowState:
    """One request between two steps."""

    x: Float[Tensor, "1 C T H W"]
    done: int
    sampling: Sampling
    prompt_embeds: PromptEmbeds
    conditioning: Conditioning
    video: VideoShape

    @property
    def total(self) -> int:
        return self.sampling.num_inference_steps

    def levels(self, step: int) -> Float[Tensor, "1 1 T H W"]:
        """The noise level of every position at the boundary before `step`."""
        return self.conditioning.freedom * self.sampling.sigmas[step]


@dataclass(frozen=True)
class _Row:
    """One row of the network's batch."""

    x: Float[Tensor, "1 C T H W"]
    levels: Float[Tensor, "1 1 T H W"]
    embeds: Float[Tensor, "1 S E"]
    mask: Tensor


class FlowSampler:
    """Integrates a backbone's velocity from noise to latents."""

    def __init__(self, backbone: HybridBackbone, *, grid: LatentGrid, device: torch.device) -> None:
        self._backbone, self._grid, self._device = backbone.to(device), grid, device

    def start(
        self,
        video: VideoShape,
        *,
        prompt_embeds: PromptEmbeds,
        sampling: Sampling,
        pins: Sequence[Pin],
        latents: Latents | None,
        purpose: str,
    ) -> FlowState:
        """Noise (over `latents`, where there are any) at the first sigma; pinned positions start as clean as they are strong."""
        shape = (1, *self._grid.shape_of(video))
        free = torch.zeros(shape) if latents is None else latents.video
        pinned = [(pin.latents.video, self._grid.latent_frame(pin.frame), pin.strength) for pin in pins if isinstance(pin.latents, Latents)]
        conditioning = pin_latents(free, pinned)
        noise = draw_noise(shape, seed=sampling.seed, purpose=purpose)
        x = add_noise(conditioning.clean, noise=noise, sigma=conditioning.freedom * sampling.sigmas[0])
        moved = Conditioning(conditioning.clean.to(self._device), conditioning.freedom.to(self._device))
        return FlowState(x.to(self._device), 0, sampling, _moved(prompt_embeds, self._device), moved, video)

    @torch.inference_mode()
    def step(self, states: Sequence[FlowState]) -> list[FlowState]:
        """One Euler step for every state; all have the same video shape."""
        rows = [row for state in states for row in _rows(state)]
        velocities = iter(self._predict(rows, video=states[0].video))
        return [self._advance(state, velocities=[next(velocities) for _ in _rows(state)]) for state in states]

    def finish(self, state: FlowState) -> Latents:
        return Latents(state.x.cpu())

    def _advance(self, state: FlowState, *, velocities: list[Tensor]) -> FlowState:
        conditional, *unconditional = velocities
        velocity = classifier_free(conditional, unconditional[0], scale=state.sampling.guidance.scale) if unconditional else conditional
        x = euler(state.x, velocity=velocity, sigma=state.levels(state.done), next_sigma=state.levels(state.done + 1))
        return replace(state, x=x, done=state.done + 1)

    def _predict(self, rows: Sequence[_Row], *, video: VideoShape) -> list[Float[Tensor, "1 C T H W"]]:
        _, t, h, w = self._grid.shape_of(video)
        longest = max(row.mask.shape[1] for row in rows)
        count = len(rows)
        tokens = Tokens(
            values=rearrange(torch.cat([row.x for row in rows]), "b c t h w -> b (t h w) c"),
            sigmas=rearrange(torch.cat([row.levels for row in rows]), "b 1 t h w -> b (t h w)"),
            positions=grid_positions(video, grid=self._grid).to(self._device).expand(count, -1, -1),
            grid=(t, h, w),
        )
        context = Context(
            prompt_embeds=torch.cat([F.pad(row.embeds, (0, 0, 0, longest - row.embeds.shape[1])) for row in rows]),
            mask=torch.cat([F.pad(row.mask, (0, longest - row.mask.shape[1])) for row in rows]),
            size=torch.tensor([[video.height, video.width, video.frame_rate]], device=self._device).float().expand(count, -1),
        )
        velocity = rearrange(self._backbone(tokens, context), "b (t h w) c -> b c t h w", t=t, h=h, w=w)
        return list(velocity.split(1))


def _rows(state: FlowState) -> list[_Row]:
    levels, prompt = state.levels(state.done), state.prompt_embeds
    rows = [_Row(state.x, levels, prompt.embeds, prompt.mask)]
    if state.sampling.guidance.passes == 2:
        assert prompt.negative_embeds is not None and prompt.negative_mask is not None, "a guided call needs a negative prompt's embeds"
        rows.append(_Row(state.x, levels, prompt.negative_embeds, prompt.negative_mask))
    return rows


def _moved(prompt: PromptEmbeds, device: torch.device) -> PromptEmbeds:
    parts = (prompt.embeds, prompt.mask, prompt.negative_embeds, prompt.negative_mask)
    return PromptEmbeds(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]
