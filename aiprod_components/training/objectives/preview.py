"""clips -> VAE latents, and the frames that the VAE makes of them -> the linear map that comes nearest, by least squares"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Float64
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import load_model, save_model
from aiprod_components.models.preview import LatentPreview, PreviewConfig, with_border
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.training.config import Strict
from aiprod_components.training.dataset import clips_of, scenes_of
from aiprod_components.values import LatentGrid

SHOWN = 2  # of the frames of a latent one the third is shown: nothing linear can show all, and by PSNR it is the easiest


class PreviewClips(Strict):
    """The clips of the first `count` seeds, at one size."""

    size: PositiveInt
    num_frames: PositiveInt
    count: PositiveInt


class PreviewRecipe(Strict):
    component: Literal["preview"]
    model: PreviewConfig
    clips: list[PreviewClips]
    mix: SceneMix
    ridge: PositiveFloat  # beside the mean square of a latent
    threads: PositiveInt = 2
    device: str = "cpu"


class PreviewObjective:
    """Solves the normal equations of each quarter of a latent position's patch, in one pass over the clips.

    By quarters, since a corner's patch reaches over the frame's border, where there is nothing to learn from.
    """

    def __init__(self, recipe: PreviewRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        self.vae = load_model(VideoVAE, VideoVAEConfig, output / "vae").to(self.device)
        self.model = LatentPreview(recipe.model)

    @torch.no_grad()
    def solve(self) -> None:
        """Writes the weights where the family finds them."""
        inputs, outputs = 4 * self.recipe.model.latent_channels + 1, 3 * self.recipe.model.patch**2 // 4
        squares, products = torch.zeros(4, inputs, inputs).double(), torch.zeros(4, inputs, outputs).double()
        for clips in self.recipe.clips:
            for seed in range(clips.count):
                given, wanted = self._rows(*self._seen(clips, seed))
                squares += given.mT @ given
                products += given.mT @ wanted
        ridge = self.recipe.ridge * squares.diagonal(dim1=1, dim2=2).mean()
        self.model.load_state_dict(self._weights(torch.linalg.solve(squares + ridge * torch.eye(inputs).double(), products)))
        save_model(self.model, self.output / "preview", dtype=torch.float16)

    def _seen(self, clips: PreviewClips, seed: int) -> tuple[Tensor, Tensor]:
        frames = clips_of(scenes_of([seed], mix=self.recipe.mix), num_frames=clips.num_frames, size=clips.size)
        latents = self.vae.encode(to_unit(frames).to(self.device))
        return latents.cpu(), shown_by(latents, vae=self.vae, patch=self.recipe.model.patch).cpu()

    def _rows(self, latents: Float[Tensor, "1 C T h w"], shown: Float[Tensor, "1 3 T H W"]) -> tuple[Tensor, Tensor]:
        """For every quarter of every position: the four positions that meet in its corner, and a one; its pixels."""
        height, width = latents.shape[3:]
        corners = rearrange(F.unfold(with_border(latents), 2), "t c (h w) -> c t h w", h=height + 1)
        near = [corners[..., u : u + height, v : v + width] for u in range(2) for v in range(2)]
        given = rearrange(near, "quarter c t h w -> quarter (t h w) c")
        pixels = rearrange(shown, "1 c t (h u p) (w v q) -> (u v) (t h w) (c p q)", h=height, u=2, w=width, v=2)
        return torch.cat([given, torch.ones(*given.shape[:2], 1)], dim=2).double(), pixels.double()

    def _weights(self, solution: Float64[Tensor, "Q I O"]) -> dict[str, Tensor]:
        """The first quarter of a position is the last of the patch around its first corner, and so on."""
        quarters = rearrange(solution, "(u v) i o -> u v i o", u=2).flip(0, 1)
        half = self.recipe.model.patch // 2
        whole = rearrange(quarters, "u v i (c p q) -> (c u p v q) i", p=half, q=half)
        return {"corners.weight": rearrange(whole[:, :-1], "o (c i j) -> o c i j", i=2, j=2), "corners.bias": whole[:, -1]}


def shown_by(latents: Float[Tensor, "1 C T h w"], *, vae: VideoVAE, patch: int) -> Float[Tensor, "1 3 T H W"]:
    """What a preview should look like: for each latent frame one of the frames that the VAE makes of it, smaller."""
    frames = vae.decode(latents)
    grid = LatentGrid(time=4, space=16, channels=vae.config.latent_channels)
    picked = [0, *range(1 + SHOWN, frames.shape[2], grid.time)]
    side = grid.space // patch
    return reduce(frames[:, :, picked], "b c t (h i) (w j) -> b c t h w", "mean", i=side, j=side)
