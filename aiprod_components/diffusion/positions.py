"""latent grid of a video -> where and when each token is"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from aiprod_components.values import LatentGrid, VideoShape


def grid_positions(video: VideoShape, *, grid: LatentGrid) -> Float[Tensor, "N 3"]:
    """Centres of the latent positions in (seconds, pixels down, pixels right), in token order.

    The first latent frame is the first frame alone; each later one is a group of `grid.time` frames.
    """
    _, frames, height, width = grid.shape_of(video)
    index = torch.arange(frames, dtype=torch.float32)
    first_of_group = (index - 1).clamp(min=0) * grid.time + (index > 0)
    size_of_group = torch.where(index > 0, float(grid.time), 1.0)
    seconds = (first_of_group + (size_of_group - 1) / 2) / video.frame_rate
    down, right = ((torch.arange(count) + 0.5) * grid.space for count in (height, width))
    return rearrange(torch.stack(torch.meshgrid(seconds, down, right, indexing="ij")), "coordinate t h w -> (t h w) coordinate")


def guide_positions(guide: VideoShape, *, video: VideoShape, frame: int, grid: LatentGrid) -> Float[Tensor, "N 3"]:
    """Those of a clip beside `video` that begins at its frame `frame`; a smaller one covers the same view, so it is stretched over it."""
    stretch = torch.tensor([1.0, video.height / guide.height, video.width / guide.width])
    return grid_positions(guide, grid=grid) * stretch + torch.tensor([frame / video.frame_rate, 0.0, 0.0])
