"""frames, sound -> mp4 (h264, yuv420p; AAC), playable while it loads; one frame -> png or webp, without loss; sound -> m4a (AAC) or wav"""

import io
import tempfile
import wave
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from aiprod_components.values import Frames, Waveform, exact_rate

# Visually lossless: these are the product's pictures, and the encoder must not be what is seen of them.
CONSTANT_RATE_FACTOR = "14"

AUDIO_BITS_PER_SECOND = "192000"
# Channels -> how they lie.
LAYOUTS: dict[int, str] = {1: "mono", 2: "stereo"}

# Format of a still -> media type.
STILL_TYPES: dict[str, str] = {"png": "image/png", "webp": "image/webp"}
# Container of a sound alone -> media type.
SOUND_TYPES: dict[str, str] = {"m4a": "audio/mp4", "wav": "audio/wav"}


def encode_mp4(frames: Frames) -> bytes:
    """Encodes the first clip of the batch. Height and width must be even, which every latent grid makes them."""
    return encode_chunks([frames.pixels], frame_rate=frames.frame_rate)


def encode_chunks(chunks: Iterable[UInt8[Tensor, "B t H W 3"]], *, frame_rate: float, sound: Waveform | None = None) -> bytes:
    """`encode_mp4` of frames that come a few at a time, in order: each chunk is encoded before the next is asked for.

    The sound is made as long as the pictures: cut off, or silent in the end.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A real file: moving the index to the front (faststart) reads the output again.
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=exact_rate(frame_rate), options={"crf": CONSTANT_RATE_FACTOR})
            stream.pix_fmt = "yuv420p"
            track = None if sound is None else _Track(container, sound)
            seconds = 0.0
            for chunk in chunks:
                if not stream.codec_context.is_open:
                    _, _, stream.height, stream.width, _ = chunk.shape
                for pixels in chunk[0].numpy():
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                seconds += chunk.shape[1] / frame_rate
                if track is not None:
                    track.write(until=seconds)
            container.mux(stream.encode(None))
            if track is not None:
                track.close()
        return path.read_bytes()


class _Track:
    """The sound of a file, written as its pictures are, so that a player finds both side by side."""

    def __init__(self, container: OutputContainer, sound: Waveform) -> None:
        self._container, self._rate = container, sound.sample_rate
        self._samples = sound.samples[0].clamp(-1, 1).contiguous().numpy()
        self._layout = LAYOUTS[len(self._samples)]
        self._stream = container.add_stream("aac", rate=self._rate, options={"b": AUDIO_BITS_PER_SECOND})
        self._stream.layout = self._layout
        self._written = 0

    def write(self, *, until: float) -> None:
        """All of it up to a moment, in seconds."""
        end = round(until * self._rate)
        part = self._samples[:, self._written : end]
        silence = np.zeros((len(part), end - self._written - part.shape[1]), np.float32)
        frame = av.AudioFrame.from_ndarray(np.concatenate([part, silence], axis=1), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._written, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written = end

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))


def encode_sound(sound: Waveform, *, container: str) -> bytes:
    """The first of the batch, all of it and no more: as AAC (m4a), or as 16 bits a sample (wav)."""
    return {"m4a": _m4a, "wav": _wav}[container](sound)


def _m4a(sound: Waveform) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.m4a"
        # Its length is told in this unit: in milliseconds, as is usual, it would be rounded.
        unit = {"movie_timescale": str(sound.sample_rate)}
        with av.open(str(path), "w", options={"movflags": "+faststart", **unit}) as container:
            track = _Track(container, sound)
            track.write(until=sound.samples.shape[2] / sound.sample_rate)
            track.close()
        return path.read_bytes()


def _wav(sound: Waveform) -> bytes:
    samples = sound.samples[0].clamp(-1, 1).T.numpy()
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(samples.shape[1])
        written.setsampwidth(2)
        written.setframerate(sound.sample_rate)
        written.writeframes((samples * (2**15 - 1)).round().astype("<i2").tobytes())
    return file.getvalue()


def encode_still(pixels: UInt8[Tensor, "H W 3"], *, format: Literal["png", "webp"]) -> bytes:
    """Encodes one frame so that every byte of it can be had again."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format, lossless=True)  # PNG always is, and does not mind being told
    return file.getvalue()
