"""picture, footage or the last frames of a clip -> frames of the asked size -> latents"""

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import EncodeFootage, EncodePicture, EncodeTail
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.media.pictures import read_whole_picture, resized_picture
from aiprod_components.stages.base import Progress
from aiprod_components.stages.ltx2.latents import Normalization
from aiprod_components.stages.ltx2.tiles import decoded_parts, encoded
from aiprod_components.stages.reference import read_reference
from aiprod_components.values import Latents


class LTX2VAEEncoder:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._vae: Any = family.load("vae").to(device)
        self._normalization = Normalization.of_video(family, device=device)
        self._family, self._device = family, device

    @torch.inference_mode()
    def run(self, call: EncodePicture | EncodeFootage | EncodeTail, progress: Progress) -> Latents:
        if isinstance(call, EncodePicture):
            frames = self._picture(call)
        elif isinstance(call, EncodeFootage):
            frames = _unit(read_reference(call, progress))
        else:
            frames = self._tail(call)
        latents = encoded(self._vae, frames.to(self._device, self._vae.dtype), tiling=self._family.fitting.tiling)
        progress.advance(1, 1)
        return Latents(self._normalization.done(latents.float()).cpu())

    def _picture(self, call: EncodePicture) -> Float[Tensor, "1 3 1 H W"]:
        """Compressed as the pictures were that the network was trained with, then resized. A video has no side of one pixel."""
        from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf

        pixels = read_whole_picture(call.picture)
        if min(pixels.shape[:2]) > 1:
            pixels = apply_image_conditioning_crf(pixels, self._family.version.picture_crf)
        if call.antialias:
            return _unit(torch.from_numpy(resized_picture(pixels, height=call.height, width=call.width))[None, None])
        return _covering(pixels, height=call.height, width=call.width)

    def _tail(self, call: EncodeTail) -> Float[Tensor, "1 3 T H W"]:
        """Decoding looks back, so the latents before the tail are decoded with it."""
        latents = self._normalization.undone(cast(Latents, call.latents).video.to(self._device)).to(self._vae.dtype)
        frames = torch.cat(list(decoded_parts(self._vae, latents, tiling=self._family.fitting.tiling)), dim=2)
        return frames[:, :, -self._family.grid.frames_in(call.latent_frames) :].clamp(-1, 1)


def _unit(pixels: UInt8[Tensor, "1 T H W 3"]) -> Float[Tensor, "1 3 T H W"]:
    """Bytes -> [-1, 1]."""
    return 2.0 * (rearrange(pixels, "b t h w c -> b c t h w").float() / 255.0) - 1.0


def _covering(pixels: UInt8[np.ndarray, "h w 3"], *, height: int, width: int) -> Float[Tensor, "1 3 1 H W"]:
    """Resized without a filter until it covers the frame, then its middle."""
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    size = (int(np.ceil(pixels.shape[0] * scale)), int(np.ceil(pixels.shape[1] * scale)))
    channels = rearrange(torch.from_numpy(np.ascontiguousarray(pixels)).float(), "h w c -> 1 c h w")
    resized = F.interpolate(channels, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return rearrange(resized[:, :, top : top + height, left : left + width] / 127.5 - 1.0, "b c h w -> b c 1 h w")
