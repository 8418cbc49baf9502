"""frames a few at a time -> marked, counted in their digest, encoded with their sound -> a video"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal, cast

from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.calls import DecodeVideo
from aiprod_components.media.encode import STILL_TYPES, encode_chunks, encode_still
from aiprod_components.values import Video, Waveform
from aiprod_components.watermarks import Watermark

Pixels = UInt8[Tensor, "1 t H W 3"]


def make_video(chunks: Iterator[Pixels], call: DecodeVideo, *, watermark: Watermark | None) -> Video:
    """A chunk is asked for when the one before has been encoded. The digest is that of all the frames together, as they are shown."""
    digest = hashlib.sha256()
    shown = _watched(_marked(chunks, watermark), digest.update)
    return Video(_encode(shown, call), call.video, digest.hexdigest(), STILL_TYPES.get(call.container, "video/mp4"))


def _marked(chunks: Iterator[Pixels], watermark: Watermark | None) -> Iterator[Pixels]:
    start = 0
    for chunk in chunks:
        yield chunk if watermark is None else watermark.apply(chunk, start=start)
        start += chunk.shape[1]


def _watched(chunks: Iterator[Pixels], update: Callable[[bytes], None]) -> Iterator[Pixels]:
    """The chunks as they are. `update` sees the bytes that `digest_of` would see of all the frames together."""
    for chunk in chunks:
        update(chunk.numpy().tobytes())
        yield chunk


def _encode(chunks: Iterator[Pixels], call: DecodeVideo) -> bytes:
    if call.container == "mp4":
        return encode_chunks(chunks, frame_rate=call.video.frame_rate, sound=cast(Waveform | None, call.sound))
    (still,) = chunks
    return encode_still(still[0, 0], format=cast(Literal["png", "webp"], call.container))
