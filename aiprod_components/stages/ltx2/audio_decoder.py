"""audio latents -> spectrogram -> sound"""

from typing import Any, cast

import torch

from aiprod_components.calls import DecodeAudio
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.base import Progress
from aiprod_components.values import Latents, Waveform


class LTX2AudioDecoder:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._vae: Any = family.load("audio_vae").to(device)
        self._vocoder: Any = family.load("vocoder").to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, call: DecodeAudio, progress: Progress) -> Waveform:
        """Of clips that follow each other, what was heard in the one before is left out."""
        rate = int(self._vocoder.config.output_sampling_rate)
        heard = round(call.overlap / call.video.frame_rate * rate)
        clips = [self._decode(cast(Latents, clip)) for clip in call.clips]
        progress.advance(1, 1)
        return Waveform(torch.cat([clips[0], *(clip[:, :, heard:] for clip in clips[1:])], dim=2), rate)

    def _decode(self, latents: Latents) -> torch.Tensor:
        assert latents.audio is not None, "this family's latents have sound"
        spectrogram = self._vae.decode(latents.audio.to(self._device, self._vae.dtype), return_dict=False)[0]
        return self._vocoder(spectrogram.float()).float().cpu()
