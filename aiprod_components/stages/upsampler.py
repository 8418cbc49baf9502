"""latents -> latents of twice the height and width"""

from typing import cast

import torch

from aiprod_components.calls import Upsample
from aiprod_components.families.base import Family
from aiprod_components.stages.base import Progress
from aiprod_components.values import Latents


class Upsampler:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._network = family.load("upsampler").to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, call: Upsample, progress: Progress) -> Latents:
        latents = cast(Latents, call.latents)
        video = self._network(latents.video.to(self._device)).cpu()
        progress.advance(1, 1)
        return Latents(video, latents.audio)
