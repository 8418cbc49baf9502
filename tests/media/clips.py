"""levels of gray -> small videos in every container, as tests need them"""

import struct
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import UInt8

CODECS = {"mp4": "libx264", "mov": "libx265", "webm": "libvpx-vp9", "mkv": "libvpx"}


def gray(levels: list[int], *, height: int = 48, width: int = 64) -> UInt8[np.ndarray, "T H W 3"]:
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def corner(num_frames: int = 3) -> UInt8[np.ndarray, "T H W 3"]:
    """Black, with a white patch in the upper left."""
    pixels = gray([16] * num_frames)
    pixels[:, :24, :32] = 235
    return pixels


def encoded(
    pixels: UInt8[np.ndarray, "T H W 3"],
    folder: Path,
    *,
    container: str = "mp4",
    rate: Fraction = Fraction(24),
    options: dict[str, str] | None = None,
    turned: tuple[int, bool] = (0, False),
    aspect: Fraction = Fraction(1),
    metadata: dict[str, str] | None = None,
) -> bytes:
    path = folder / f"video.{container}"
    with av.open(str(path), "w", options=options or {}) as file:
        file.metadata.update(metadata or {})
        stream = cast(VideoStream, file.add_stream(CODECS[container], rate=rate))
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if any(turned):
            stream.set_display_rotation(turned[0], hflip=turned[1])
        for frame in pixels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return path.read_bytes()


def sound(folder: Path) -> bytes:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path.read_bytes()


def written(data: bytes, tag: bytes, *, at: int, value: int) -> bytes:
    """The bytes with a number of 32 bits changed, so far behind the start of a box's name."""
    place = data.index(tag) + at
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def with_sound(folder: Path, *, container: str) -> bytes:
    """Three gray frames and a moment of silence."""
    path = folder / f"both.{container}"
    with av.open(str(path), "w") as file:
        shown = file.add_stream("libx264", rate=24)
        shown.height, shown.width, shown.pix_fmt = 48, 64, "yuv420p"
        heard = file.add_stream("aac", rate=48_000)
        for pixels in gray([40, 50, 60]):
            file.mux(shown.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 6000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48_000
        for stream, frame in ((heard, silence), (shown, None), (heard, None)):
            file.mux(stream.encode(frame))  # type: ignore[arg-type]
    return path.read_bytes()
