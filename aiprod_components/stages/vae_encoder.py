"""picture -> frame of the asked size -> latents of one frame"""

from typing import cast

import torch

from aiprod_components.calls import EncodePicture
from aiprod_components.families.base import Family
from aiprod_components.media.frames import to_unit
from aiprod_components.media.pictures import read_picture
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.base import Progress
from aiprod_components.values import Latents


class VAEEncoder:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._vae = cast(VideoVAE, family.load("vae")).to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, call: EncodePicture, progress: Progress) -> Latents:
        frame = read_picture(call.picture, height=call.height, width=call.width)
        latents = self._vae.encode(to_unit(frame).to(self._device)).cpu()
        progress.advance(1, 1)
        return Latents(latents)
