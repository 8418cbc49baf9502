"""control name -> what it sees in frames

`video` is for references that show already what is to be followed: depth, poses, a video that is to be restored.
"""

from collections.abc import Callable

from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.media.canny import edge_frames

CONTROLS: dict[str, Callable[[UInt8[Tensor, "B T H W 3"]], UInt8[Tensor, "B T H W 3"]]] = {
    "canny": edge_frames,
    "video": lambda frames: frames,
}
