"""upsampled latents, noised again, and prompt embeds -> latents with the detail of their size"""

import torch

from aiprod_components.families.base import Family
from aiprod_components.stages.flow import FlowStage


class Refiner(FlowStage):
    def __init__(self, family: Family, *, device: torch.device) -> None:
        super().__init__(family, component="refiner", device=device)
