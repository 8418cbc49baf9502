"""latents -> frames (marked), with their sound -> an encoded file: raw frames never leave this stage"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from aiprod_components.calls import DecodeVideo
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.media.frames import to_bytes
from aiprod_components.stages.base import Progress
from aiprod_components.stages.ltx2.latents import Normalization
from aiprod_components.stages.ltx2.tiles import decoded_parts
from aiprod_components.stages.video_file import Pixels, make_video
from aiprod_components.values import Latents, Video
from aiprod_components.watermarks import make_watermark

CHUNK = 16  # frames that are encoded at a time


class LTX2VAEDecoder:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._vae: Any = family.load("vae").to(device)
        self._normalization = Normalization.of_video(family, device=device)
        self._device, self._dtype = device, family.dtype
        self._tiling = family.fitting.tiling
        self._watermark = None if family.watermark is None else make_watermark(family.watermark)

    @torch.inference_mode()
    def run(self, call: DecodeVideo, progress: Progress) -> Video:
        """Progress counts clips."""
        return make_video(self._frames(call, progress), call, watermark=self._watermark)

    def _frames(self, call: DecodeVideo, progress: Progress) -> Iterator[Pixels]:
        for number, clip in enumerate(call.clips, start=1):
            seen = call.overlap if number > 1 else 0
            for part in self._decode(cast(Latents, clip).video):
                new = part[:, :, seen:]
                seen = max(seen - part.shape[2], 0)
                for chunk in new.split(CHUNK, dim=2) if new.shape[2] else ():
                    yield to_bytes((chunk * 0.5 + 0.5).clamp(0, 1).float().cpu())
            progress.advance(number, len(call.clips))

    def _decode(self, latents: Tensor) -> Iterator[Tensor]:
        """A few frames at a time; values from -1 to 1, but for those that overshoot."""
        raw = self._normalization.undone(latents.to(self._device, self._dtype)).to(self._vae.dtype)
        return decoded_parts(self._vae, raw, tiling=self._tiling)
