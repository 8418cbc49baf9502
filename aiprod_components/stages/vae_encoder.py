"""picture, footage or the last frames of a clip -> frames of the asked size -> latents"""

from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import EncodeFootage, EncodePicture, EncodeTail
from aiprod_components.families.base import Family
from aiprod_components.media.frames import to_unit
from aiprod_components.media.pictures import read_picture
from aiprod_components.models.tiling import decode_stream, encode_stream, fit_tiling
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.base import Progress
from aiprod_components.stages.reference import read_reference
from aiprod_components.values import Latents


class VAEEncoder:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._vae = cast(VideoVAE, family.load("vae")).to(device)
        self._grid, self._device = family.grid, device

    @torch.inference_mode()
    def run(self, call: EncodePicture | EncodeFootage | EncodeTail, progress: Progress) -> Latents:
        if isinstance(call, EncodePicture):
            latents = self._encode(read_picture(call.picture, height=call.height, width=call.width))
        elif isinstance(call, EncodeFootage):
            latents = self._encode(read_reference(call, progress))
        else:
            latents = self._tail(call)
        progress.advance(1, 1)
        return Latents(latents.cpu())

    def _tail(self, call: EncodeTail) -> Tensor:
        """Decoding looks back, so the latents before the tail are decoded with it."""
        latents = cast(Latents, call.latents).video.to(self._device)
        wanted = self._grid.frames_in(call.latent_frames)
        tail = torch.zeros(0)
        for chunk in decode_stream(self._vae, latents, tiling=fit_tiling(latents.shape[3], latents.shape[4])):
            seen = chunk if not len(tail) else torch.cat([tail, chunk], dim=2)
            tail = seen[:, :, -wanted:]
        return self._compress(tail)

    def _encode(self, pixels: UInt8[Tensor, "1 T H W 3"]) -> Tensor:
        return self._compress(to_unit(pixels).to(self._device))

    def _compress(self, frames: Float[Tensor, "1 3 T H W"]) -> Tensor:
        tiling = fit_tiling(frames.shape[3] // self._grid.space, frames.shape[4] // self._grid.space)
        return torch.cat(list(encode_stream(self._vae, frames, tiling=tiling)), dim=2)
