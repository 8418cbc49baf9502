"""prompt embeds (and pinned latents) -> stage-1 latents"""

from collections.abc import Sequence
from typing import cast

import torch

from aiprod_components.calls import Denoise
from aiprod_components.families.base import Family
from aiprod_components.models.backbone import HybridBackbone
from aiprod_components.stages.base import Progress, run_steps
from aiprod_components.stages.flow_sampler import FlowSampler, FlowState
from aiprod_components.values import Latents, PromptEmbeds


class Denoiser:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._sampler = FlowSampler(cast(HybridBackbone, family.load("denoiser")), grid=family.grid, device=device)

    def run(self, call: Denoise, progress: Progress) -> Latents:
        return run_steps(self, call, progress)

    def start(self, call: Denoise) -> FlowState:
        embeds = cast(PromptEmbeds, call.prompt_embeds)
        return self._sampler.start(
            call.video, prompt_embeds=embeds, sampling=call.sampling, pins=call.pins, latents=None, purpose="denoise"
        )

    def step(self, states: Sequence[FlowState]) -> list[FlowState]:
        return self._sampler.step(states)

    def finish(self, state: FlowState) -> Latents:
        return self._sampler.finish(state)
