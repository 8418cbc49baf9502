"""an uploaded sound, or that of footage -> spectrogram -> audio latents; or as it is, to be heard with the pictures

The spectrogram is that of AudioLDM (Liu et al. 2023), whose rate, hop and bands the audio VAE's config names: magnitudes of windows of 1024
samples about every hop, in bands by Slaney's scale, as logarithms.
"""

from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import EncodeSound, ReadSound
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.media.sounds import read_sound
from aiprod_components.stages.base import Progress
from aiprod_components.values import AudioLatents, VideoShape, Waveform

WINDOW = 1024
SILENCE = 1e-5  # of a band, at least
PLAYED_RATE = 48_000


class LTX2AudioEncoder:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._vae: Any = family.load("audio_vae").to(device)
        self._grid, self._device = family.grid, device
        self._rate, self._hop = int(self._vae.config.sample_rate), int(self._vae.config.mel_hop_length)
        self._filters = mel_filters(rate=self._rate, bands=int(self._vae.config.mel_bins)).to(device)

    @torch.inference_mode()
    def run(self, call: EncodeSound | ReadSound, progress: Progress) -> AudioLatents | Waveform:
        """Cancelled, it ends at the next piece of the file."""
        if isinstance(call, ReadSound):
            seconds = call.video.num_frames / call.video.frame_rate
            samples = self._read(call, rate=PLAYED_RATE, start=0.0, seconds=seconds, progress=progress)
            made = Waveform(samples[None], PLAYED_RATE)
        else:
            made = AudioLatents(self._encode(call, progress))
        progress.advance(1, 1)
        return made

    def _encode(self, call: EncodeSound, progress: Progress) -> Float[Tensor, "1 A L F"]:
        frames = self._frames_of(call.video)
        length = max(frames * self._hop, WINDOW // 2 + 1)  # less cannot be mirrored
        samples = self._read(call, rate=self._rate, start=call.start, seconds=length / self._rate, progress=progress)
        spectrogram = log_mel(samples.to(self._device), hop=self._hop, filters=self._filters)[:, :frames]
        return self._vae.encode(spectrogram[None].to(self._vae.dtype)).latent_dist.mode().float().cpu()

    def _frames_of(self, video: VideoShape) -> int:
        """As many as are decoded of a video's audio latents: the first of these is one alone, like the first frame."""
        compression = round(self._rate / self._hop / self._grid.audio_rate)
        return (self._grid.audio_tokens_of(video) - 1) * compression + 1

    def _read(self, call: EncodeSound | ReadSound, *, rate: int, start: float, seconds: float, progress: Progress) -> Float[Tensor, "2 N"]:
        return read_sound(call.sound, sample_rate=rate, start=start, seconds=seconds, watch=lambda: progress.advance(0, 1))


def log_mel(samples: Float[Tensor, "C N"], *, hop: int, filters: Float[Tensor, "bins bands"]) -> Float[Tensor, "C T bands"]:
    """Of windows about every `hop`-th sample, the first included; the sound is mirrored at its ends."""
    window = torch.hann_window(WINDOW, device=samples.device)
    waves = torch.stft(samples, WINDOW, hop, window=window, center=True, pad_mode="reflect", return_complex=True).abs()
    return (rearrange(waves, "c f t -> c t f") @ filters).clamp(min=SILENCE).log()


def mel_filters(*, rate: int, bands: int) -> Float[Tensor, "bins bands"]:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(WINDOW // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(cast(Any, filters)).float()
