"""audio latents -> spectrogram -> sound, for a video, or encoded as a file of its own"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import DecodeAudio, DecodeSound
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.base import Progress
from aiprod_components.stages.sound_file import make_sound_file
from aiprod_components.values import AudioLatents, Latents, Video, Waveform


class LTX2AudioDecoder:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._vae: Any = family.load("audio_vae").to(device)
        self._vocoder: Any = family.load("vocoder").to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, call: DecodeAudio | DecodeSound, progress: Progress) -> Waveform | Video:
        """Clips that follow each other are decoded as one, so that nothing is heard where they meet."""
        sound = self._sound(_audio(call))
        made = make_sound_file(sound, call) if isinstance(call, DecodeSound) else sound
        progress.advance(1, 1)
        return made

    def _sound(self, audio: Float[Tensor, "B A L F"]) -> Waveform:
        spectrogram = self._vae.decode(audio.to(self._device, self._vae.dtype), return_dict=False)[0]
        samples = self._vocoder(spectrogram.float()).float().cpu()
        return Waveform(samples, int(self._vocoder.config.output_sampling_rate))


def _audio(call: DecodeAudio | DecodeSound) -> Float[Tensor, "B A L F"]:
    if isinstance(call, DecodeSound):
        return cast(AudioLatents, call.audio).audio
    clips = [cast(Latents, clip).audio for clip in call.clips]
    return torch.cat([_heard(clip, again) for clip, again in zip(clips, call.heard, strict=True)], dim=2)


def _heard(audio: Float[Tensor, "B A L F"] | None, again: int) -> Float[Tensor, "B A l F"]:
    assert audio is not None, "this family's latents have sound"
    return audio[:, :, again:]
