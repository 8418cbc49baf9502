"""latents -> frames (marked) -> an encoded file, a few frames at a time: raw frames never leave this stage, nor are all there at once"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.calls import DecodeVideo
from aiprod_components.families.base import Family
from aiprod_components.media.encode import STILL_TYPES, encode_chunks, encode_still
from aiprod_components.media.frames import to_bytes
from aiprod_components.models.tiling import chunks_of, decode_stream, fit_tiling
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.base import Progress
from aiprod_components.values import Latents, Video
from aiprod_components.watermarks import make_watermark

Pixels = UInt8[Tensor, "1 t H W 3"]


class VAEDecoder:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._vae = cast(VideoVAE, family.load("vae")).to(device)
        self._device = device
        self._watermark = None if family.watermark is None else make_watermark(family.watermark)

    @torch.inference_mode()
    def run(self, call: DecodeVideo, progress: Progress) -> Video:
        """Progress counts chunks, so a long video can be cancelled between two of them."""
        digest = hashlib.sha256()
        data = _encode(_watched(self._marked(self._frames(call, progress)), digest.update), call)
        return Video(data, call.video, digest.hexdigest(), STILL_TYPES.get(call.container, "video/mp4"))

    def _marked(self, chunks: Iterator[Pixels]) -> Iterator[Pixels]:
        start = 0
        for chunk in chunks:
            yield chunk if self._watermark is None else self._watermark.apply(chunk, start=start)
            start += chunk.shape[1]

    def _frames(self, call: DecodeVideo, progress: Progress) -> Iterator[Pixels]:
        """A chunk has ended when it has been encoded, which is when the next one is asked for."""
        clips = [cast(Latents, clip).video for clip in call.clips]
        tilings = [fit_tiling(clip.shape[3], clip.shape[4]) for clip in clips]
        total = sum(chunks_of(clip.shape[2], tiling=tiling) for clip, tiling in zip(clips, tilings, strict=True))
        done = 0
        for clip, tiling in zip(clips, tilings, strict=True):
            shown_before = call.overlap if done else 0
            for frames in decode_stream(self._vae, clip.to(self._device), tiling=tiling):
                yield to_bytes(frames[:, :, shown_before:].cpu())
                shown_before = max(shown_before - frames.shape[2], 0)
                done += 1
                progress.advance(done, total)


def _watched(chunks: Iterable[Pixels], update: Callable[[bytes], None]) -> Iterator[Pixels]:
    """The chunks as they are. `update` sees the bytes that `digest_of` would see of all the frames together."""
    for chunk in chunks:
        update(chunk.numpy().tobytes())
        yield chunk


def _encode(chunks: Iterator[Pixels], call: DecodeVideo) -> bytes:
    if call.container == "mp4":
        return encode_chunks(chunks, frame_rate=call.video.frame_rate)
    (still,) = chunks
    return encode_still(still[0, 0], format=cast(Literal["png", "webp"], call.container))
