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
        """Clips that follow each other are decoded as one, so that nothing is heard where they meet."""
        clips = [self._audio(cast(Latents, clip))[:, :, heard:] for clip, heard in zip(call.clips, call.heard, strict=True)]
        spectrogram = self._vae.decode(torch.cat(clips, dim=2), return_dict=False)[0]
        samples = self._vocoder(spectrogram.float()).float().cpu()
        progress.advance(1, 1)
        return Waveform(samples, int(self._vocoder.config.output_sampling_rate))

    def _audio(self, latents: Latents) -> torch.Tensor:
        assert latents.audio is not None, "this family's latents have sound"
        return latents.audio.to(self._device, self._vae.dtype)
