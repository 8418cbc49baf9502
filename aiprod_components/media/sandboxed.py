"""tasks on a pipe -> a confined process -> answers on a pipe, in the order of the tasks: what runs in the sandbox's child

Everything is imported first; then the process gives up what it may, says that it is ready, and only now sees an uploaded byte.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.confine import confine
from aiprod_components.media.hearing import SAMPLE_BYTES, samples, survey_sound, survey_sound_of_video
from aiprod_components.media.messages import MAX_ERROR, receive, send
from aiprod_components.media.moments import moments
from aiprod_components.media.probe import survey
from aiprod_components.media.raster import MAX_PIXELS_TOGETHER, decode_picture, fit_picture

Answer = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class Upload:
    """What a task is about: the bytes, and the client's name for the field that they came in."""

    data: bytes
    field: str


class Readers:
    """One method for each kind of task. What they raise is InvalidMediaError, and MemoryError at the limit."""

    def __init__(self) -> None:
        self._pixels = 0  # of the pictures checked so far

    def check_picture(self, upload: Upload) -> Iterator[Answer]:
        image = decode_picture(upload.data, field=upload.field, most=MAX_PIXELS_TOGETHER - self._pixels)
        self._pixels += image.width * image.height
        yield {}, b""

    def read_picture(self, upload: Upload, *, height: int, width: int) -> Iterator[Answer]:
        image = decode_picture(upload.data, field=upload.field)
        yield {}, fit_picture(image, height=height, width=width).tobytes()

    def read_whole_picture(self, upload: Upload) -> Iterator[Answer]:
        image = decode_picture(upload.data, field=upload.field)
        yield {"height": image.height, "width": image.width}, image.tobytes()

    def check_footage(self, upload: Upload) -> Iterator[Answer]:
        width, height, seconds, frame_rate = survey(upload.data, field=upload.field)
        heard = survey_sound_of_video(upload.data, field=upload.field)
        yield {"width": width, "height": height, "seconds": seconds, "frame_rate": frame_rate, "sound_seconds": heard}, b""

    def read_footage(self, upload: Upload, *, num_frames: int, height: int, width: int, period: str) -> Iterator[Answer]:
        shown = moments(upload.data, field=upload.field, num_frames=num_frames, period=Fraction(period), size=(width, height))
        for picture, times in shown:
            yield {"times": times}, picture.tobytes()

    def check_sound(self, upload: Upload) -> Iterator[Answer]:
        yield {"seconds": survey_sound(upload.data, field=upload.field)}, b""

    def read_sound(self, upload: Upload) -> Iterator[Answer]:
        """Frames of samples as they lie, channel by channel or side by side; the end is one of none."""
        for frame, at in samples(upload.data, field=upload.field):
            kind, channels = frame.format.packed.name, frame.layout.nb_channels
            beside = 1 if frame.format.is_planar else channels
            size = frame.samples * beside * SAMPLE_BYTES[kind]
            header = {"samples": frame.samples, "kind": kind, "planar": frame.format.is_planar, "rate": frame.sample_rate}
            payload = b"".join(bytes(plane)[:size] for plane in frame.planes)
            yield header | {"channels": channels, "layout": frame.layout.name, "at": at}, payload
        yield {"samples": 0}, b""


def serve(*, cpu_seconds: int, memory_bytes: int) -> None:
    """Never returns: at the end there is nothing to tidy up, and nothing left to do it with."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    confine(cpu_seconds=cpu_seconds, memory_bytes=memory_bytes)
    send(sink, {"ready": True})
    sink.flush()
    os.close(2)  # nobody reads there any more: a file of many warnings would fill the pipe and be waited for
    tasks = []
    while (header := receive(source)) is not None:
        tasks.append((header, source.read(header["bytes"])))
    readers = Readers()
    for header, data in tasks:
        for answer, payload in _answers(getattr(readers, header["kind"]), Upload(data, header["field"]), header["arguments"]):
            send(sink, answer, payload)
        sink.flush()
    os._exit(0)


def _answers(read: Callable[..., Iterator[Answer]], upload: Upload, arguments: dict[str, Any]) -> Iterator[Answer]:
    try:
        yield from read(upload, **arguments)
    except InvalidMediaError as error:
        yield {"error": error.message[:MAX_ERROR]}, b""
    except MemoryError:
        yield {"out_of_memory": True}, b""
