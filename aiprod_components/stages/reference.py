"""a reference video -> its frames at the asked size and rate -> what the control sees in them"""

from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.calls import EncodeFootage
from aiprod_components.media.controls import CONTROLS
from aiprod_components.media.footage import read_footage
from aiprod_components.stages.base import Progress


def read_reference(call: EncodeFootage, progress: Progress) -> UInt8[Tensor, "1 T H W 3"]:
    """The frames from `start` on, or what the control sees in them. Cancelled, it ends at the next frame."""
    video = call.video
    frames = read_footage(
        call.footage,
        num_frames=call.start + video.num_frames,
        height=video.height,
        width=video.width,
        frame_rate=video.frame_rate,
        watch=lambda: progress.advance(0, 1),
    )[:, call.start :]
    return frames if call.control is None else CONTROLS[call.control](frames)
