"""frames -> mp4 (h264, yuv420p, playable while it loads)"""

import tempfile
from pathlib import Path

import av

from aiprod_components.values import Frames, exact_rate

# Visually lossless: these are the product's pictures, and the encoder must not be what is seen of them.
CONSTANT_RATE_FACTOR = "14"


def encode_mp4(frames: Frames) -> bytes:
    """Encodes the first clip of the batch. Height and width must be even, which every latent grid makes them."""
    with tempfile.TemporaryDirectory() as folder:
        # A real file: moving the index to the front (faststart) reads the output again.
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=exact_rate(frames.frame_rate), options={"crf": CONSTANT_RATE_FACTOR})
            _, _, stream.height, stream.width, _ = frames.pixels.shape
            stream.pix_fmt = "yuv420p"
            for pixels in frames.pixels[0].numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()
