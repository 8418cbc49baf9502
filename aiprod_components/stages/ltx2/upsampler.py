"""latents -> latents of twice the height and width; sound and noise pass through"""

from typing import cast

import torch

from aiprod_components.calls import Upsample
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.base import Progress
from aiprod_components.stages.ltx2.latents import Normalization
from aiprod_components.values import Latents


class LTX2Upsampler:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._network = family.load("latent_upsampler").to(device)
        self._normalization = Normalization.of_video(family, device=device)
        self._dtype, self._device = family.dtype, device

    @torch.inference_mode()
    def run(self, call: Upsample, progress: Progress) -> Latents:
        """The network reads latents as the VAE does."""
        latents = cast(Latents, call.latents)
        raw = self._normalization.undone(latents.video.to(self._device)).to(self._dtype)
        video = self._normalization.done(self._network(raw)).cpu()
        progress.advance(1, 1)
        return Latents(video, latents.audio, latents.noise_state)
