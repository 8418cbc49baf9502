"""frames -> mp4 (h264, yuv420p, playable while it loads); one frame -> png or webp, without loss"""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import av
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from aiprod_components.values import Frames, exact_rate

# Visually lossless: these are the product's pictures, and the encoder must not be what is seen of them.
CONSTANT_RATE_FACTOR = "14"

# Format of a still -> media type.
STILL_TYPES: dict[str, str] = {"png": "image/png", "webp": "image/webp"}


def encode_mp4(frames: Frames) -> bytes:
    """Encodes the first clip of the batch. Height and width must be even, which every latent grid makes them."""
    return encode_chunks([frames.pixels], frame_rate=frames.frame_rate)


def encode_chunks(chunks: Iterable[UInt8[Tensor, "B t H W 3"]], *, frame_rate: float) -> bytes:
    """`encode_mp4` of frames that come a few at a time, in order: each chunk is encoded before the next is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        # A real file: moving the index to the front (faststart) reads the output again.
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=exact_rate(frame_rate), options={"crf": CONSTANT_RATE_FACTOR})
            stream.pix_fmt = "yuv420p"
            for chunk in chunks:
                if not stream.codec_context.is_open:
                    _, _, stream.height, stream.width, _ = chunk.shape
                for pixels in chunk[0].numpy():
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def encode_still(pixels: UInt8[Tensor, "H W 3"], *, format: Literal["png", "webp"]) -> bytes:
    """Encodes one frame so that every byte of it can be had again."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format, lossless=True)  # PNG always is, and does not mind being told
    return file.getvalue()
