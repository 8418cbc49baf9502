"""latents -> frames (marked) -> an encoded file, a few frames at a time: raw frames never leave this stage, nor are all there at once"""

from collections.abc import Iterator
from typing import cast

import torch

from aiprod_components.calls import DecodeVideo
from aiprod_components.families.base import Family
from aiprod_components.media.frames import to_bytes
from aiprod_components.models.tiling import chunks_of, decode_stream, fit_tiling
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.base import Progress
from aiprod_components.stages.video_file import Pixels, make_video
from aiprod_components.values import Latents, Video
from aiprod_components.watermarks import make_watermark


class VAEDecoder:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._vae = cast(VideoVAE, family.load("vae")).to(device)
        self._device = device
        self._watermark = None if family.watermark is None else make_watermark(family.watermark)

    @torch.inference_mode()
    def run(self, call: DecodeVideo, progress: Progress) -> Video:
        """Progress counts chunks, so a long video can be cancelled between two of them."""
        return make_video(self._frames(call, progress), call, watermark=self._watermark)

    def _frames(self, call: DecodeVideo, progress: Progress) -> Iterator[Pixels]:
        """A chunk has ended when it has been encoded, which is when the next one is asked for."""
        clips = [cast(Latents, clip).video for clip in call.clips]
        tilings = [fit_tiling(clip.shape[3], clip.shape[4]) for clip in clips]
        total = sum(chunks_of(clip.shape[2], tiling=tiling) for clip, tiling in zip(clips, tilings, strict=True))
        done = 0
        for clip, tiling in zip(clips, tilings, strict=True):
            shown_before = call.overlap if done else 0
            for frames in decode_stream(self._vae, clip.to(self._device), tiling=tiling):
                yield to_bytes(frames[:, :, shown_before:].cpu())
                shown_before = max(shown_before - frames.shape[2], 0)
                done += 1
                progress.advance(done, total)
