"""A preview is a linear map of the four latent positions around each pixel, and shows what the decoder shows, roughly."""

from typing import cast

import pytest
import torch

from aiprod_components.families import make_family
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.preview import LatentPreview, PreviewConfig
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.training.dataset import FIRST_HELD_OUT_SEED, clips_of, scenes_of
from aiprod_components.training.objectives.preview import shown_by
from aiprod_components.training.quality import psnr


def test_a_preview_has_a_patch_for_every_position_and_a_frame_for_every_latent_frame():
    preview = LatentPreview(PreviewConfig(latent_channels=4, patch=6))
    assert preview(torch.randn(2, 4, 3, 1, 5)).shape == (2, 3, 3, 6, 30)


def test_a_pixel_sees_the_four_positions_around_it_and_no_others():
    preview = LatentPreview(PreviewConfig(latent_channels=4, patch=4))
    latents = torch.randn(1, 4, 2, 4, 4)
    nudged = latents.clone()
    nudged[:, :, 1, 1, 2] += 1
    changed = (preview(nudged) != preview(latents)).any(dim=1)[0]
    # Half a patch beyond the position's own 4 x 4 pixels on every side, in its own frame alone.
    assert changed[1, 2:10, 6:14].all()
    assert changed.sum() == 64


@pytest.mark.parametrize(("size", "least"), [(64, 23.0), (128, 23.0)])
def test_the_shipped_preview_shows_held_out_clips_as_the_decoder_does(size: int, least: float):
    family = make_family("miniature")
    vae, preview = cast(VideoVAE, family.load("vae")), family.load("preview")
    seeds = range(FIRST_HELD_OUT_SEED + 100, FIRST_HELD_OUT_SEED + 104)
    with torch.inference_mode():
        clips = [vae.encode(to_unit(clips_of(scenes_of([seed], mix=SceneMix()), num_frames=17, size=size))) for seed in seeds]
        likenesses = [psnr(preview(latents).clamp(0, 1), shown_by(latents, vae=vae, patch=8)) for latents in clips]
    assert sum(likenesses) / len(likenesses) > least
