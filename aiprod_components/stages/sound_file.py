"""sound -> as long as it was asked for, counted in its digest, encoded -> a file of its own"""

import hashlib

import torch

from aiprod_components.calls import DecodeSound
from aiprod_components.media.encode import SOUND_TYPES, encode_sound
from aiprod_components.values import Video, Waveform


def make_sound_file(sound: Waveform, call: DecodeSound) -> Video:
    """Cut off, or silent in the end, as a video's sound is. The digest is that of the samples, whatever they are encoded as."""
    length = round(call.video.num_frames / call.video.frame_rate * sound.sample_rate)
    samples = sound.samples[:, :, :length]
    fitted = torch.nn.functional.pad(samples, (0, length - samples.shape[2]))
    digest = hashlib.sha256(fitted.contiguous().numpy().tobytes()).hexdigest()
    data = encode_sound(Waveform(fitted, sound.sample_rate), container=call.container)
    return Video(data, call.video, digest, SOUND_TYPES[call.container])
