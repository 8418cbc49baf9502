"""uploaded bytes -> a stream of sound that is opened within limits -> its length, or its samples as they lie in the file

Runs in the sandbox, like `probe`: no torch, no NumPy.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import InputContainer
from av.stream import Disposition

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.probe import MATROSKA_START, MAX_SECONDS, MP4_START, bounded, check_bytes, contained, damaged

ACCEPTED_SOUND = "a wav, mp3, aac, flac, m4a, mp4, mov or webm"
# What sound is coded in; uncompressed sound has many names.
SOUND_CODECS = ("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac", "alac")
PCM_CODECS = ("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le")
MIN_SECONDS, MIN_SAMPLE_RATE = 0.01, 4000  # below is nothing that can be heard
MAX_SAMPLE_RATE, MAX_CHANNELS = 192_000, 8
MAX_SAMPLES = MAX_SECONDS * 48_000 * MAX_CHANNELS  # of all channels together
# How a file begins -> FFmpeg's name for its reader.
STARTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (MP4_START, "mov"),
    (re.compile(re.escape(MATROSKA_START)), "matroska"),
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), "wav"),
    (re.compile(rb"fLaC"), "flac"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac"),
    (re.compile(rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]"), "mp3"),
)
# The formats of samples that decoders give -> bytes of one.
SAMPLE_BYTES: dict[str, int] = {"u8": 1, "s16": 2, "s32": 4, "flt": 4, "dbl": 8}


def survey_sound(data: bytes, *, field: str) -> float:
    """Seconds of sound, by its packets. Decodes the first of them. Raises InvalidMediaError naming the field and what is accepted."""
    with _listened(data, field=field) as (container, stream):
        if stream is None:
            raise InvalidMediaError(f"{field} has no sound in it; send {ACCEPTED_SOUND} with some", field=field)
        seconds = _length(container, stream, field=field)
        if seconds > MAX_SECONDS:
            raise InvalidMediaError(f"{field} must be at most {MAX_SECONDS} s long, got {seconds:.0f} s; cut it", field=field)
        if seconds < MIN_SECONDS:
            raise InvalidMediaError(f"{field} must be at least {MIN_SECONDS} s long, got {seconds:.2g} s; send a longer one", field=field)
        return seconds


def survey_sound_of_video(data: bytes, *, field: str) -> float:
    """Seconds of the sound beside the pictures; 0 where there is none that can be read: a video needs none."""
    try:
        with _listened(data, field=field) as (container, stream):
            return 0.0 if stream is None else _length(container, stream, field=field)
    except InvalidMediaError:
        return 0.0


def samples(data: bytes, *, field: str) -> Iterator[tuple[AudioFrame, float]]:
    """Frames of sound as they are decoded, and where each begins: seconds from the first picture, where there is one, or the first frame.

    Raises InvalidMediaError where there is more than is allowed, or damage.
    """
    left = MAX_SAMPLES
    with _listened(data, field=field) as (container, stream):
        if stream is None:
            raise InvalidMediaError(f"{field} has no sound in it; send {ACCEPTED_SOUND} with some", field=field)
        start = _start(container)
        for frame in container.decode(stream):
            _check_frame(frame, field=field)
            left -= frame.samples * frame.layout.nb_channels
            if left < 0:
                raise InvalidMediaError(f"{field} must have at most {MAX_SAMPLES} samples; cut it, or lower its rate", field=field)
            began = Fraction(frame.pts or 0) * (frame.time_base or Fraction(1))
            start = began if start is None else start
            yield frame, float(began - start)


def _start(container: InputContainer) -> Fraction | None:
    """When the first picture is shown."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.start_time is not None and stream.time_base is not None:
            return stream.start_time * stream.time_base
    return None


@contextmanager
def _listened(data: bytes, *, field: str) -> Iterator[tuple[InputContainer, AudioStream | None]]:
    """The container and its first stream of sound whose codec is accepted, if there is one."""
    check_bytes(data, field=field, accepted=ACCEPTED_SOUND)
    reader = next((name for start, name in STARTS if start.match(data)), None)
    if reader is None:
        raise InvalidMediaError(f"{field} is not a sound; send {ACCEPTED_SOUND}", field=field)
    with contained(
        data, field=field, reader=reader, readers=[name for _, name in STARTS], codecs=[*SOUND_CODECS, *PCM_CODECS]
    ) as container:
        stream = next((each for each in container.streams.audio if _is_known(each)), None)
        if stream is not None:
            stream.codec_context.thread_count = 1  # the sandbox has no other
        yield container, stream


def _is_known(stream: AudioStream) -> bool:
    codec: Codec | None = getattr(stream, "codec", None)  # there is none for a codec that FFmpeg does not know
    return codec is not None and codec.name in (*SOUND_CODECS, *PCM_CODECS)


def _length(container: InputContainer, stream: AudioStream, *, field: str) -> float:
    first: AudioFrame | None = None
    begin, end = None, Fraction(0)
    for packet in bounded(container.demux(stream), field=field):
        if packet.pts is not None:
            began = packet.pts * packet.time_base
            begin = began if begin is None else min(begin, began)
            end = max(end, began + (packet.duration or 0) * packet.time_base)
        first = first or next(iter(stream.decode(packet)), None)
    if first is None or begin is None:
        raise damaged(field, "no sound of it can be decoded")
    _check_frame(first, field=field)
    return float(end - max(begin, Fraction(0)))


def _check_frame(frame: AudioFrame, *, field: str) -> None:
    if frame.sample_rate < MIN_SAMPLE_RATE:
        raise InvalidMediaError(
            f"{field} must have at least {MIN_SAMPLE_RATE} samples a second, got {frame.sample_rate}; save it again as a wav", field=field
        )
    if frame.sample_rate > MAX_SAMPLE_RATE or frame.layout.nb_channels > MAX_CHANNELS or frame.format.packed.name not in SAMPLE_BYTES:
        raise InvalidMediaError(
            f"{field} must have at most {MAX_SAMPLE_RATE} samples a second in {MAX_CHANNELS} channels, got {frame.sample_rate} in "
            f"{frame.layout.nb_channels}; save it again as a wav",
            field=field,
        )
