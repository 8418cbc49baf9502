"""latents -> latents of another height and width, or of twice the frame rate"""

from typing import cast

import torch
from torch import nn

from aiprod_components.calls import Upsample
from aiprod_components.families.base import Family
from aiprod_components.stages.base import Progress
from aiprod_components.values import Latents

DOUBLING = "upsampler"  # what the two stages need; the others are loaded when they are first asked for


class Upsampler:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._family, self._device = family, device
        self._networks: dict[str, nn.Module] = {}
        self._network(DOUBLING)

    @torch.inference_mode()
    def run(self, call: Upsample, progress: Progress) -> Latents:
        latents = cast(Latents, call.latents)
        video = self._network(call.network)(latents.video.to(self._device)).cpu()
        progress.advance(1, 1)
        return Latents(video, latents.audio)

    def _network(self, name: str) -> nn.Module:
        if name not in self._networks:
            self._networks[name] = self._family.load(name).to(self._device)
        return self._networks[name]
