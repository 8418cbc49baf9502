"""uploaded bytes -> a container that is opened within limits -> the size, length and rate that its packets say

Runs in the sandbox: no torch, no NumPy. Containers are read from memory alone, by two readers that are named; nothing that a file
names is ever opened.
"""

import io
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeVar, cast

import av
from av.buffer import Buffer
from av.codec import Codec
from av.container import InputContainer
from av.error import FFmpegError
from av.error import MemoryError as FFmpegMemoryError
from av.stream import Disposition
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aiprod_components.errors import InvalidMediaError

T = TypeVar("T")
Shape = tuple[int, int, float, float]  # width and height as shown, upright and with square pixels; seconds; frames per second

# PyAV imports these when it meets subtitles, which is too late in the sandbox: nothing can be opened there any more.
PARTS = (SubtitleCodecContext, SubtitleStream)

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
MAX_STREAMS = 50  # a camera writes ten at most
MAX_ENTRIES = MAX_SECONDS * 48_000  # of an mp4's index: uncompressed sound has one for each sample
END_SLACK = 0.5  # seconds by which a header may promise more than the file holds
IO_SECONDS = 10  # for one read by FFmpeg, which takes milliseconds: against what no limit above foresees

# How an mp4 or mov begins: the size of its first box, then its kind. A Matroska file (webm) begins with a number.
MP4_START = re.compile(rb".{4}(?:ftyp|moov|mdat|free|skip|wide)", re.DOTALL)
MATROSKA_START = b"\x1aE\xdf\xa3"
READERS = ("mov", "matroska")  # FFmpeg's names for them
# Where an mp4 says how many entries its index has, and a header that is compressed, which would hide that.
ENTRIES = re.compile(rb"st(?:sz|z2).{8}(?P<all>.{4})|trun.{4}(?P<run>.{4})|(?P<hidden>cmvd)", re.DOTALL)


def survey(data: bytes, *, field: str) -> Shape:
    """Reads every packet, for times about which no header can lie, and decodes the first frame, for its size and orientation.

    Raises InvalidMediaError naming the field and what is accepted, or MemoryError at the sandbox's limit.
    """
    frame: VideoFrame | None = None
    shown: list[tuple[int, int]] = []  # when, and for how long
    whole, end = 0, Fraction(0)
    with opened(data, field=field) as (container, stream):
        for packet in bounded(container.demux(), field=field):
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index == stream.index:
                whole += packet.size > 0 and not packet.is_corrupt
                shown += [(packet.pts, packet.duration or 0)] if packet.pts is not None and not packet.is_discard else []
                frame = frame or next(iter(stream.decode(packet)), None)
        _check_whole(container, stream, whole=whole, end=float(end), field=field)
        if frame is None or not shown:
            raise damaged(field, "no frame of it can be decoded")
        return _shape_of(stream, frame, sorted(shown), field=field)


def bounded(packets: Iterator[T], *, field: str) -> Iterator[T]:
    for read, packet in enumerate(packets):
        if read == MAX_PACKETS:
            raise InvalidMediaError(f"{field} must have at most {MAX_PACKETS} packets in all; save it again", field=field)
        yield packet


def _check_whole(container: InputContainer, stream: VideoStream, *, whole: int, end: float, field: str) -> None:
    """An mp4's index lists its packets; a Matroska file says at its start when the last of them ends."""
    if container.format.name.startswith("mov"):
        if whole < len(stream.index_entries):
            raise damaged(field, f"only {whole} of its {len(stream.index_entries)} frames are whole")
    elif container.duration and end < container.duration / av.time_base - END_SLACK:
        raise damaged(field, f"it ends after {end:.2f} of its {container.duration / av.time_base:.2f} s")


def _shape_of(stream: VideoStream, frame: VideoFrame, shown: list[tuple[int, int]], *, field: str) -> Shape:
    """The shape by the packets' own times, earliest first. Raises InvalidMediaError when it is beyond the limits."""
    (first, _), (last, duration) = shown[0], shown[-1]
    unit, stated = stream.time_base or Fraction(1), float(stream.average_rate or 0)
    gap = (last - first) / (len(shown) - 1) if last > first else 1 / (stated or 1) / unit
    seconds = float((last - first + (duration or gap)) * unit)
    _check_length(seconds, count=len(shown), field=field)
    _check_size(frame.width, frame.height, count=len(shown), field=field)
    (across, down), _ = matrix_of(frame)
    width, height = round(frame.width * (stream.sample_aspect_ratio or 1)), frame.height
    if abs(down) > abs(across):
        width, height = height, width
    # The stated rate is believed where it can be true: counting packets, the unseen ones of VP8 would count.
    return width, height, seconds, stated if 0 < stated <= MAX_RATE else len(shown) / seconds


def matrix_of(frame: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    """How the frame wants to be turned and mirrored: [[a, b], [c, d]] takes x, y to ax + cy, bx + dy."""
    side = cast(Mapping[str, Buffer], frame.side_data).get("DISPLAYMATRIX")
    a, b, _, c, d, *_ = (1, 0, 0, 0, 1) if side is None else struct.unpack("=9i", bytes(side))
    return (a, b), (c, d)


@contextmanager
def opened(data: bytes, *, field: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its stream of pictures, whose header is within the limits. What FFmpeg stumbles over is refused."""
    with contained(data, field=field, reader=_reader(data, field=field), readers=READERS, codecs=[*CODECS, "libdav1d"]) as container:
        stream = _stream_of(container, field=field)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.codec_context.thread_count = 1  # the sandbox has no other
        yield container, stream


@contextmanager
def contained(data: bytes, *, field: str, reader: str | None, readers: Iterable[str], codecs: Iterable[str]) -> Iterator[InputContainer]:
    """The container, read by FFmpeg's reader of that name (None: that it finds), and whatever is in it by these readers and codecs alone.

    What FFmpeg stumbles over is refused.
    """
    _check_index(data, field=field)
    # A stream may announce a small picture and hold a large one: FFmpeg then refuses it before it takes the memory.
    limits = {
        "max_pixels": str(MAX_PIXELS),
        "max_streams": str(MAX_STREAMS),
        "codec_whitelist": ",".join(codecs),
        "format_whitelist": ",".join(readers),
        "protocol_whitelist": "none",
    }
    try:
        with av.open(
            io.BytesIO(data), "r", format=reader, options=limits, metadata_errors="replace", timeout=IO_SECONDS, io_open=_open_nothing
        ) as container:
            yield container
    except FFmpegMemoryError as error:  # said of tracks, too
        raise damaged(field, f"it asks for more memory than there is, or for more than {MAX_STREAMS} tracks") from error
    except (FFmpegError, ArithmeticError, ValueError, OSError) as error:
        raise damaged(field, getattr(error, "strerror", None) or str(error)) from error


def _reader(data: bytes, *, field: str) -> str:
    """FFmpeg's name for the container, by the first bytes. FFmpeg itself would also try playlists, scripts and 300 more."""
    check_bytes(data, field=field, accepted=ACCEPTED)
    if MP4_START.match(data):
        return READERS[0]
    if data.startswith(MATROSKA_START):
        return READERS[1]
    raise InvalidMediaError(f"{field} is not a video; send {ACCEPTED}", field=field)


def check_bytes(data: bytes, *, field: str, accepted: str) -> None:
    """Raises InvalidMediaError for nothing, and for too much."""
    if not data:
        raise InvalidMediaError(f"{field} is empty; send {accepted}", field=field)
    if len(data) > MAX_BYTES:
        raise InvalidMediaError(f"{field} must be at most {MAX_BYTES} bytes, got {len(data)}; compress it more or cut it", field=field)


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
        raise too_large(field, f"{width}x{height}")
    if width * height * count > MAX_DECODED:
        raise too_large(field, f"{count} frames of {width}x{height}")


def too_large(field: str, size: str) -> InvalidMediaError:
    limits = f"at most {MAX_SIDE} pixels a side, {MAX_PIXELS} in a frame and {MAX_DECODED} in all frames"
    return InvalidMediaError(f"{field} must have {limits}, got {size}; make it smaller or shorter", field=field)


def damaged(field: str, what: str) -> InvalidMediaError:
    return InvalidMediaError(f"{field} is a damaged or truncated video ({what}); save it again as mp4", field=field)
