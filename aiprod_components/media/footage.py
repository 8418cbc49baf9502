"""uploaded bytes -> a video that is known to be one -> frames of the asked number, size and rate

Containers are read from memory alone, by two readers that are named; nothing that a file names is ever opened.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TypeVar, cast

import av
import numpy as np
import torch
from av.buffer import Buffer
from av.codec import Codec
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int32, UInt8
from PIL import Image
from torch import Tensor

from aiprod_components.errors import InvalidMediaError
from aiprod_components.values import Footage, exact_rate

T = TypeVar("T")

FIELD = "reference_video"  # whose footage it is once it was checked
ACCEPTED = "an mp4, mov or webm"
CODECS = {"h264": "H.264", "hevc": "H.265", "vp8": "VP8", "vp9": "VP9", "av1": "AV1"}
MAX_BYTES = 25_000_000
MAX_SIDE = 8192
MAX_PIXELS = 7680 * 4320  # an 8K frame
MAX_SECONDS = 60
MAX_RATE = 240
MAX_FRAMES = MAX_SECONDS * MAX_RATE
MAX_DECODED = MAX_SECONDS * 60 * 1920 * 1080  # pixels in all: a minute of full HD, 60 frames a second
MAX_PACKETS = 4 * MAX_FRAMES  # of pictures, sound and the rest
MAX_BOXES = 10_000  # of an mp4 that are told apart; what follows them is taken for headers
MAX_ENTRIES = MAX_SECONDS * 48_000  # of an mp4's index: uncompressed sound has one for each sample
ASPECT_SLACK = 0.02
END_SLACK = 0.5  # seconds by which a header may promise more than the file holds
IO_SECONDS = 10  # for one read by FFmpeg, which takes milliseconds: against what no limit above foresees

# How an mp4 or mov begins: the size of its first box, then its kind. A Matroska file (webm) begins with a number.
MP4_START = re.compile(rb".{4}(?:ftyp|moov|mdat|free|skip|wide)", re.DOTALL)
MATROSKA_START = b"\x1aE\xdf\xa3"
# Where an mp4 says how many entries its index has, and a header that is compressed, which would hide that.
ENTRIES = re.compile(rb"st(?:sz|z2).{8}(?P<all>.{4})|trun.{4}(?P<run>.{4})|(?P<hidden>cmvd)", re.DOTALL)


@dataclass(frozen=True)
class FootageShape:
    """The size of a video as it is shown, upright and with square pixels; its length in seconds and its frames per second."""

    width: int
    height: int
    seconds: float
    frame_rate: float


def check_footage(data: bytes, *, field: str) -> Footage:
    """Reads an upload through and decodes its first frame. Raises InvalidMediaError naming the field and what is accepted."""
    _survey(data, field=field)
    return Footage(data)


def probe_footage(footage: Footage) -> FootageShape:
    """What the packets say, not the header: one frame is decoded, for its orientation."""
    return _survey(footage.data, field=FIELD)


def check_aspect(shape: FootageShape, *, height: int, width: int, field: str) -> None:
    """Raises InvalidMediaError, saying how to crop, when the footage's aspect is more than 2 % from the frame's."""
    wider = Fraction(shape.width * height, shape.height * width)
    if abs(wider - 1) <= ASPECT_SLACK:
        return
    crop = (round(shape.width / wider), shape.height) if wider > 1 else (shape.width, round(shape.height * wider))
    raise InvalidMediaError(
        f"{field} must have the aspect of width x height, {width}x{height}, got {shape.width}x{shape.height}; "
        f"crop it to {crop[0]}x{crop[1]}, or ask for a width of about {round(width * wider)} at this height",
        field=field,
    )


def check_length(shape: FootageShape, *, num_frames: int, frame_rate: float, field: str) -> None:
    """Raises InvalidMediaError when the footage ends more than one frame period early; the message says how many frames it has."""
    rate = exact_rate(frame_rate)
    most = int(shape.seconds * rate + 1e-6) + 1
    if num_frames > most:
        raise InvalidMediaError(
            f"{field} must last {float(num_frames / rate):.2f} s for num_frames {num_frames} at frame_rate {frame_rate:g}, "
            f"got {shape.seconds:.2f} s; ask for num_frames at most {most}, or send a longer video",
            field=field,
        )


def read_footage(footage: Footage, *, num_frames: int, height: int, width: int, frame_rate: float) -> UInt8[Tensor, "1 T H W 3"]:
    """Turns the footage upright, takes for each moment the frame nearest to it in time and resizes it (Lanczos) to exactly the asked size.

    Raises InvalidMediaError when the footage is shorter than asked, or damaged further in.
    """
    check_length(probe_footage(footage), num_frames=num_frames, frame_rate=frame_rate, field=FIELD)
    clip = np.empty((num_frames, height, width, 3), np.uint8)
    filled = 0
    with _opened(footage.data, field=FIELD) as (container, stream):
        frames = _decoded(container, stream, field=FIELD)
        for frame, times in _at_rate(frames, num_frames=num_frames, period=1 / exact_rate(frame_rate)):
            clip[filled : filled + times] = np.asarray(_upright(frame).resize((width, height), Image.Resampling.LANCZOS))
            filled += times
    return torch.from_numpy(clip)[None]


def _at_rate(frames: Iterator[VideoFrame], *, num_frames: int, period: Fraction) -> Iterator[tuple[VideoFrame, int]]:
    """Frames, each with the number of moments it is nearest to; a tie goes to the earlier one."""
    current = next(frames, None)
    if current is None:
        raise _damaged(FIELD, "no frame of it can be decoded")
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
                raise _too_large(field, f"more than {MAX_DECODED} pixels in all its frames")
            if frame.pts is not None:
                yield frame


def _survey(data: bytes, *, field: str) -> FootageShape:
    """Reads every packet, for times about which no header can lie, and decodes the first frame."""
    frame: VideoFrame | None = None
    shown: list[tuple[int, int]] = []  # when, and for how long
    whole, end = 0, Fraction(0)
    with _opened(data, field=field) as (container, stream):
        for packet in _bounded(container.demux(), field=field):
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index == stream.index:
                whole += packet.size > 0 and not packet.is_corrupt
                shown += [(packet.pts, packet.duration or 0)] if packet.pts is not None and not packet.is_discard else []
                frame = frame or next(iter(stream.decode(packet)), None)
        _check_whole(container, stream, whole=whole, end=float(end), field=field)
        if frame is None or not shown:
            raise _damaged(field, "no frame of it can be decoded")
        return _shape_of(stream, frame, sorted(shown), field=field)


def _bounded(packets: Iterator[T], *, field: str) -> Iterator[T]:
    for read, packet in enumerate(packets):
        if read == MAX_PACKETS:
            raise InvalidMediaError(f"{field} must have at most {MAX_PACKETS} packets in all; save it again", field=field)
        yield packet


def _check_whole(container: InputContainer, stream: VideoStream, *, whole: int, end: float, field: str) -> None:
    """An mp4's index lists its packets; a Matroska file says at its start when the last of them ends."""
    if container.format.name.startswith("mov"):
        if whole < len(stream.index_entries):
            raise _damaged(field, f"only {whole} of its {len(stream.index_entries)} frames are whole")
    elif container.duration and end < container.duration / av.time_base - END_SLACK:
        raise _damaged(field, f"it ends after {end:.2f} of its {container.duration / av.time_base:.2f} s")


def _shape_of(stream: VideoStream, frame: VideoFrame, shown: list[tuple[int, int]], *, field: str) -> FootageShape:
    """The shape by the packets' own times, earliest first. Raises InvalidMediaError when it is beyond the limits."""
    (first, _), (last, duration) = shown[0], shown[-1]
    unit, stated = stream.time_base or Fraction(1), float(stream.average_rate or 0)
    gap = (last - first) / (len(shown) - 1) if last > first else 1 / (stated or 1) / unit
    seconds = float((last - first + (duration or gap)) * unit)
    _check_length(seconds, count=len(shown), field=field)
    _check_size(frame.width, frame.height, count=len(shown), field=field)
    (across, down), _ = _matrix(frame)
    width, height = round(frame.width * (stream.sample_aspect_ratio or 1)), frame.height
    if abs(down) > abs(across):
        width, height = height, width
    # The stated rate is believed where it can be true: counting packets, the unseen ones of VP8 would count.
    return FootageShape(width, height, seconds, stated if 0 < stated <= MAX_RATE else len(shown) / seconds)


def _upright(frame: VideoFrame) -> Image.Image:
    """The frame in RGB, turned and mirrored as its display matrix asks: [[a, b], [c, d]] takes x, y to ax + cy, bx + dy."""
    pixels = frame.to_ndarray(format="rgb24")
    (a, b), (c, d) = _matrix(frame)
    across, down = (a, d)
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    pixels = pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _matrix(frame: VideoFrame) -> Int32[np.ndarray, "2 2"]:
    side = cast(Mapping[str, Buffer], frame.side_data).get("DISPLAYMATRIX")
    return np.eye(2, dtype=np.int32) if side is None else np.frombuffer(bytes(side), np.int32).reshape(3, 3)[:2, :2]


@contextmanager
def _opened(data: bytes, *, field: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its stream of pictures, whose header is within the limits. What FFmpeg stumbles over is refused."""
    reader = _reader(data, field=field)
    _check_index(data, field=field)
    # A stream may announce a small picture and hold a large one: FFmpeg then refuses it before it takes the memory.
    limits = {"max_pixels": str(MAX_PIXELS), "codec_whitelist": ",".join([*CODECS, "libdav1d"]), "protocol_whitelist": "none"}
    try:
        with av.open(
            io.BytesIO(data), "r", format=reader, options=limits, metadata_errors="replace", timeout=IO_SECONDS, io_open=_open_nothing
        ) as container:
            stream = _stream_of(container, field=field)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except (FFmpegError, ArithmeticError, ValueError, OSError) as error:
        raise _damaged(field, getattr(error, "strerror", None) or str(error)) from error


def _reader(data: bytes, *, field: str) -> str:
    """FFmpeg's name for the container, by the first bytes. FFmpeg itself would also try playlists, scripts and 300 more."""
    if not data:
        raise InvalidMediaError(f"{field} is empty; send {ACCEPTED}", field=field)
    if len(data) > MAX_BYTES:
        raise InvalidMediaError(f"{field} must be at most {MAX_BYTES} bytes, got {len(data)}; compress it more or cut it", field=field)
    if MP4_START.match(data):
        return "mov"
    if data.startswith(MATROSKA_START):
        return "matroska"
    raise InvalidMediaError(f"{field} is not a video; send {ACCEPTED}", field=field)


def _check_index(data: bytes, *, field: str) -> None:
    """Refuses an mp4 whose index claims millions of entries in a few bytes: FFmpeg would fill gigabytes with them on opening it."""
    if not MP4_START.match(data):
        return
    found = [match for part in _headers(data) for match in ENTRIES.finditer(part)]
    entries = sum(int.from_bytes(match["all"] or match["run"] or b"") for match in found)
    if entries > MAX_ENTRIES or any(match["hidden"] for match in found):
        claim = f"{entries} entries" if entries > MAX_ENTRIES else "a compressed one"
        raise InvalidMediaError(f"{field} must have an index of at most {MAX_ENTRIES} entries, got {claim}; save it again", field=field)


def _headers(data: bytes) -> Iterator[bytes]:
    """What of an mp4 lies outside of its boxes of media data, whose bytes may look like anything."""
    at = 0
    for _ in range(MAX_BOXES):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        end = at + size if size >= 8 else len(data)
        if kind != b"mdat":
            yield data[at:end]
        at = end
    yield data[at:]


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> None:
    """Stands where FFmpeg would open what a container names."""
    raise PermissionError(f"it refers to {url!r}, and must hold everything itself")


def _stream_of(container: InputContainer, *, field: str) -> VideoStream:
    """The first stream of moving pictures (a cover is none) within the limits."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise InvalidMediaError(f"{field} has no video stream; send {ACCEPTED} with pictures in it", field=field)
    stream = streams[0]
    codec: Codec | None = getattr(stream, "codec", None)  # there is none for a codec that FFmpeg does not know
    name = codec.canonical_name if codec else "something unknown"
    if name not in CODECS:
        raise InvalidMediaError(f"{field} must be coded in one of {', '.join(CODECS.values())}, got {name}", field=field)
    seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else (container.duration or 0) / av.time_base
    _check_length(float(seconds), count=stream.frames, field=field)
    _check_size(stream.width, stream.height, count=stream.frames, field=field)
    return stream


def _check_length(seconds: float, *, count: int, field: str) -> None:
    if seconds > MAX_SECONDS:
        raise InvalidMediaError(f"{field} must be at most {MAX_SECONDS} s long, got {seconds:.0f} s; cut it", field=field)
    if count > MAX_FRAMES or (seconds > 0 and count / seconds > MAX_RATE):
        limits = f"at most {MAX_FRAMES} frames and {MAX_RATE} a second"
        raise InvalidMediaError(f"{field} must have {limits}, got {count} in {seconds:.3f} s; lower its rate", field=field)


def _check_size(width: int, height: int, *, count: int, field: str) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _too_large(field, f"{width}x{height}")
    if width * height * count > MAX_DECODED:
        raise _too_large(field, f"{count} frames of {width}x{height}")


def _too_large(field: str, size: str) -> InvalidMediaError:
    limits = f"at most {MAX_SIDE} pixels a side, {MAX_PIXELS} in a frame and {MAX_DECODED} in all frames"
    return InvalidMediaError(f"{field} must have {limits}, got {size}; make it smaller or shorter", field=field)


def _damaged(field: str, what: str) -> InvalidMediaError:
    return InvalidMediaError(f"{field} is a damaged or truncated video ({what}); save it again as mp4", field=field)
