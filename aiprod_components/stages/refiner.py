"""upsampled latents, noised again, and prompt embeds -> latents with the detail of their size"""

from collections.abc import Sequence
from typing import cast

import torch

from aiprod_components.calls import Refine
from aiprod_components.families.base import Family
from aiprod_components.models.backbone import HybridBackbone
from aiprod_components.stages.base import Progress, run_steps
from aiprod_components.stages.flow_sampler import FlowSampler, FlowState
from aiprod_components.values import Latents, PromptEmbeds


class Refiner:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._sampler = FlowSampler(cast(HybridBackbone, family.load("refiner")), grid=family.grid, device=device)

    def run(self, call: Refine, progress: Progress) -> Latents:
        return run_steps(self, call, progress)

    def start(self, call: Refine) -> FlowState:
        embeds, latents = cast(PromptEmbeds, call.prompt_embeds), cast(Latents, call.latents)
        return self._sampler.start(
            call.video, prompt_embeds=embeds, sampling=call.sampling, pins=call.pins, latents=latents, purpose="refine"
        )

    def step(self, states: Sequence[FlowState]) -> list[FlowState]:
        return self._sampler.step(states)

    def finish(self, state: FlowState) -> Latents:
        return self._sampler.finish(state)
