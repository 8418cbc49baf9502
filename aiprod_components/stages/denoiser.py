"""prompt embeds (and pinned latents and guides) -> stage-1 latents"""

import torch

from aiprod_components.families.base import Family
from aiprod_components.stages.flow import FlowStage


class Denoiser(FlowStage):
    def __init__(self, family: Family, *, device: torch.device) -> None:
        super().__init__(family, component="denoiser", device=device)
