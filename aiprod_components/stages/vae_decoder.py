"""latents -> frames -> mp4: raw frames never leave this stage"""

from typing import cast

import torch

from aiprod_components.calls import DecodeVideo
from aiprod_components.families.base import Family
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.frames import digest_of, to_bytes
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.base import Progress
from aiprod_components.values import Frames, Latents, Video


class VAEDecoder:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._vae = cast(VideoVAE, family.load("vae")).to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, call: DecodeVideo, progress: Progress) -> Video:
        latents = cast(Latents, call.latents)
        frames = Frames(to_bytes(self._vae.decode(latents.video.to(self._device)).cpu()), call.video.frame_rate)
        progress.advance(1, 2)
        data = encode_mp4(frames)
        progress.advance(2, 2)
        return Video(data, call.video, digest_of(frames))
