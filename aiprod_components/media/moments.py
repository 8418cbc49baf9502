"""footage -> its frames as they are shown -> for each moment the frame nearest to it, of the asked size

Runs in the sandbox, like `probe`.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import floor

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from aiprod_components.media.probe import MAX_DECODED, damaged, matrix_of, opened, too_large


def moments(data: bytes, *, field: str, num_frames: int, period: Fraction, size: tuple[int, int]) -> Iterator[tuple[Image.Image, int]]:
    """Pictures of width x height `size`, in RGB, each with the number of moments that show it: `num_frames` together.

    Raises InvalidMediaError where the footage is damaged, or MemoryError at the sandbox's limit.
    """
    with opened(data, field=field) as (container, stream):
        frames = _decoded(container, stream, field=field)
        for frame, times in _at_rate(frames, field=field, num_frames=num_frames, period=period):
            yield _upright(frame).resize(size, Image.Resampling.LANCZOS), times


def _at_rate(frames: Iterator[VideoFrame], *, field: str, num_frames: int, period: Fraction) -> Iterator[tuple[VideoFrame, int]]:
    """Frames, each with the number of moments it is nearest to; a tie goes to the earlier one."""
    current = next(frames, None)
    if current is None:
        raise damaged(field, "no frame of it can be decoded")
    start, done = _time(current), 0
    for coming in frames:
        halfway = (_time(current) + _time(coming)) / 2 - start
        until = min(floor(halfway / period) + 1, num_frames)
        if until > done:
            yield current, until - done
            done = until
        if done == num_frames:
            return
        current = coming
    yield current, num_frames - done


def _time(frame: VideoFrame) -> Fraction:
    return (frame.pts or 0) * (frame.time_base or Fraction(1))


def _decoded(container: InputContainer, stream: VideoStream, *, field: str) -> Iterator[VideoFrame]:
    """Frames in the order they are shown. The budget is counted again: a stream may change its size midway."""
    left = MAX_DECODED
    for packet in container.demux(stream):
        for frame in packet.decode():
            left -= frame.width * frame.height
            if left < 0:
                raise too_large(field, f"more than {MAX_DECODED} pixels in all its frames")
            if frame.pts is not None:
                yield frame


def _upright(frame: VideoFrame) -> Image.Image:
    """The frame in RGB, turned and mirrored as its display matrix asks."""
    picture = frame.to_image(threads=1)
    (a, b), (c, d) = matrix_of(frame)
    across, down = a, d
    if abs(b) > abs(a):
        picture, across, down = picture.transpose(Image.Transpose.TRANSPOSE), c, b
    if across < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if down < 0 else picture
