"""states -> their samplers' questions -> one batch through the network -> guided velocities -> states one step on

What the denoiser and the refiner share. Requests with other samplers, guidance and prompts ride in one batch, as long as their
latents have one shape and they use the same LoRAs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import Denoise, Pass, Refine
from aiprod_components.diffusion.conditioning import Appended
from aiprod_components.diffusion.guiders import combine
from aiprod_components.diffusion.perturbations import Perturbation, kept_self_attention
from aiprod_components.diffusion.positions import grid_positions
from aiprod_components.diffusion.samplers import Point, Query
from aiprod_components.errors import NumericalError
from aiprod_components.families.base import Family
from aiprod_components.media.frames import to_bytes
from aiprod_components.models.backbone import Context, HybridBackbone, tokens_of
from aiprod_components.models.lora import Lora, LoraFuser, read_lora
from aiprod_components.stages.base import Progress, run_steps
from aiprod_components.stages.flow_state import FlowState, start_flow
from aiprod_components.values import LatentGrid, Latents, VideoShape

PREVIEW_FRAMES = 9  # the first latent frame, which is one frame alone, and eight that are four each


class FlowStage:
    """A stepped stage around a backbone; a component names the weights."""

    def __init__(self, family: Family, *, component: str, device: torch.device) -> None:
        backbone = cast(HybridBackbone, family.load(component)).to(device)
        self._family, self._device = family, device
        self._network = _Network(backbone, grid=family.grid, device=device)
        self._fuser = LoraFuser(backbone)
        self._loras: dict[str, Lora] = {}
        self._preview = family.load("preview").to(device) if family.has("preview") else None

    def run(self, call: Denoise | Refine, progress: Progress) -> Latents:
        return run_steps(self, call, progress)

    def start(self, call: Denoise | Refine) -> FlowState:
        return start_flow(call, grid=self._family.grid, device=self._device)

    @torch.inference_mode()
    def step(self, states: Sequence[FlowState]) -> list[FlowState]:
        """One sampler step for every state. Raises ValueError unless all have one video shape, as many guide tokens, and the same LoRAs."""
        if len({(state.video, state.guides.values.shape, state.loras) for state in states}) != 1:
            raise ValueError("states of one step must have one video shape, as many guide tokens, and the same LoRAs")
        self._fuser.fuse([(self._lora(use.name), use.scale) for use in states[0].loras])
        walks = [_Walk(state) for state in states]
        while asking := [walk for walk in walks if walk.query is not None]:
            rows = [row for walk in asking for row in walk.rows()]
            velocities = iter(self._network.predict(rows, video=states[0].video))
            for walk in asking:
                walk.answer(velocities)
        return [walk.arrived() for walk in walks]

    def finish(self, state: FlowState) -> Latents:
        """Raises NumericalError when the numbers overflowed on the way: nobody is shown a black video."""
        if not state.x.isfinite().all():
            raise NumericalError(
                "the latents are not finite after the last step; lower guidance_scale or the scales of loras and skip_guidance"
            )
        return Latents(state.x.cpu())

    @torch.inference_mode()
    def preview(self, before: FlowState, after: FlowState) -> UInt8[Tensor, "T h w 3"] | None:
        """A small frame for each of a few latent frames, the first and the last among them, of the clean latents that the step foresaw."""
        if self._preview is None:
            return None
        coming = after.x if after.done == after.total or after.velocity is None else before.x - before.levels(before.done) * after.velocity
        count = coming.shape[2]
        picked = torch.linspace(0, count - 1, min(count, PREVIEW_FRAMES)).round().long()
        return to_bytes(self._preview(coming[:, :, picked.to(coming.device)]).cpu())[0]

    def _lora(self, name: str) -> Lora:
        if name not in self._loras:
            self._loras[name] = read_lora(self._family.lora(name).path)
        return self._loras[name]


@dataclass(frozen=True)
class _Row:
    """One row of the network's batch."""

    x: Float[Tensor, "1 C T H W"]
    levels: Float[Tensor, "1 1 T H W"]
    embeds: Float[Tensor, "1 S E"]
    mask: Tensor
    guides: Appended
    perturbation: Perturbation


class _Walk:
    """A state on its way through one step."""

    def __init__(self, state: FlowState) -> None:
        self._state, self._step = state, state.walk()
        self._passes = state.sampling.guidance.passes_at(state.sigma)
        self._momentum = state.momentum
        self._point: Point | None = None
        self._velocity: Tensor | None = None
        self.query: Query | None = next(self._step)

    def rows(self) -> list[_Row]:
        """What the sampler's question means for the network: a row for each pass."""
        assert self.query is not None
        x, levels = self.query
        guides = self._state.noisy_guides(levels)
        return [self._row(kind, x, levels, guides) for kind in self._passes]

    def _row(self, kind: Pass, x: Tensor, levels: Tensor, guides: Appended) -> _Row:
        prompt = self._state.prompt_embeds
        if kind == "unconditional":
            assert prompt.negative_embeds is not None and prompt.negative_mask is not None, "a guided call needs a negative prompt's embeds"
            return _Row(x, levels, prompt.negative_embeds, prompt.negative_mask, guides, Perturbation())
        skipped = self._state.sampling.guidance.stg_blocks if kind == "perturbed" else ()
        return _Row(x, levels, prompt.embeds, prompt.mask, guides, Perturbation(skipped))

    def answer(self, velocities: Iterator[Tensor]) -> None:
        """Takes as many velocities as there were rows, and goes on to the next question or to the end of the step."""
        assert self.query is not None
        x, levels = self.query
        predicted: dict[Pass, Tensor] = {kind: next(velocities) for kind in self._passes}
        velocity = self._guided(predicted, x=x, levels=levels)
        if self._velocity is None:
            self._velocity = velocity
        try:
            self.query = self._step.send(velocity)
        except StopIteration as end:
            self.query, self._point = None, end.value

    def arrived(self) -> FlowState:
        assert self._point is not None, "the step has not ended"
        return replace(
            self._state,
            x=self._point.x,
            done=self._state.done + 1,
            memory=self._point.memory,
            momentum=self._momentum,
            velocity=self._velocity,
        )

    def _guided(self, predicted: dict[Pass, Tensor], *, x: Tensor, levels: Tensor) -> Tensor:
        if len(predicted) == 1:
            return predicted["conditional"]
        denoised: dict[Pass, Tensor] = {kind: x - levels * velocity for kind, velocity in predicted.items()}
        # That of the step before, however often this step asks: momentum counts steps.
        guided = combine(self._state.sampling.guidance, denoised, momentum=self._state.momentum, free=levels > 0)
        self._momentum = guided.momentum
        return torch.where(levels > 0, (x - guided.denoised) / levels, 0.0)


class _Network:
    """Rows of latents -> one batch of tokens -> velocities."""

    def __init__(self, backbone: HybridBackbone, *, grid: LatentGrid, device: torch.device) -> None:
        self._backbone, self._grid, self._device = backbone, grid, device

    def predict(self, rows: Sequence[_Row], *, video: VideoShape) -> list[Float[Tensor, "1 C T H W"]]:
        _, t, h, w = self._grid.shape_of(video)
        tokens = tokens_of(
            torch.cat([row.x for row in rows]),
            levels=torch.cat([row.levels for row in rows]),
            positions=grid_positions(video, grid=self._grid).to(self._device),
            guides=Appended(
                torch.cat([row.guides.values for row in rows]),
                torch.cat([row.guides.positions for row in rows]),
                torch.cat([row.guides.freedom for row in rows]),
            ),
        )
        velocity = self._backbone(tokens, self._context(rows, video=video), self._kept(rows))
        return list(rearrange(velocity, "b (t h w) c -> b c t h w", t=t, h=h, w=w).split(1))

    def _context(self, rows: Sequence[_Row], *, video: VideoShape) -> Context:
        longest = max(row.mask.shape[1] for row in rows)
        return Context(
            prompt_embeds=torch.cat([F.pad(row.embeds, (0, 0, 0, longest - row.embeds.shape[1])) for row in rows]),
            mask=torch.cat([F.pad(row.mask, (0, longest - row.mask.shape[1])) for row in rows]),
            size=torch.tensor([[video.height, video.width, video.frame_rate]], device=self._device).float().expand(len(rows), -1),
        )

    def _kept(self, rows: Sequence[_Row]) -> Float[Tensor, "B K"] | None:
        if not any(row.perturbation.skip_self_attention for row in rows):
            return None
        blocks = self._backbone.config.attention_blocks
        return kept_self_attention([row.perturbation for row in rows], blocks=blocks).to(self._device)
