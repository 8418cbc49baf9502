"""Pictures, references and the ends of clips become latents that show what they showed."""

import pytest
import torch
from torch import Tensor

from aiprod_components.calls import EncodeFootage, EncodeTail
from aiprod_components.families import make_family
from aiprod_components.local import Silent
from aiprod_components.media.canny import edge_frames
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.footage import read_footage
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import Scene, Thing
from aiprod_components.stages.vae_encoder import VAEEncoder
from aiprod_components.training.dataset import clips_of
from aiprod_components.training.quality import psnr
from aiprod_components.values import Footage, Frames, Latents, VideoShape

FAMILY = make_family("miniature")
SCENE = Scene((Thing("ball", "red", "big", "moves right", "slowly", (-0.2, 0.0)),), "navy")
VIDEO = VideoShape(num_frames=17, height=64, width=64, frame_rate=16.0)


@pytest.fixture(scope="module")
def stage() -> VAEEncoder:
    return VAEEncoder(FAMILY, device=torch.device("cpu"))


def truth() -> Tensor:
    return clips_of([SCENE], num_frames=33, size=64)


def footage() -> Footage:
    return Footage(encode_mp4(Frames(truth(), 16.0)))


@torch.inference_mode()
def seen_in(stage: VAEEncoder, latents: Latents) -> Tensor:
    return stage._vae.decode(latents.video)


def test_the_tail_of_a_clip_is_a_clip_that_begins_where_the_tail_does(stage: VAEEncoder):
    with torch.inference_mode():
        clip = stage._vae.encode(to_unit(truth()))
    tail = stage.run(EncodeTail(Latents(clip), VideoShape(33, 64, 64, 16.0), 3), Silent())
    assert tail.video.shape == (1, 64, 3, 4, 4)
    shown = seen_in(stage, tail)
    right, wrong = to_unit(truth()[:, -9:]), to_unit(truth()[:, :9])
    assert psnr(shown, right) > 30 > psnr(shown, wrong)


def test_a_reference_is_taken_from_where_its_chunk_begins(stage: VAEEncoder):
    latents = stage.run(EncodeFootage(footage(), 16, VIDEO, None), Silent())
    assert psnr(seen_in(stage, latents), to_unit(truth()[:, 16:])) > 30
    assert psnr(seen_in(stage, latents), to_unit(truth()[:, :17])) < 25


def test_a_control_is_what_is_encoded(stage: VAEEncoder):
    latents = stage.run(EncodeFootage(footage(), 0, VIDEO, "canny"), Silent()).video
    frames = read_footage(footage(), num_frames=17, height=64, width=64, frame_rate=16.0)
    with torch.inference_mode():
        expected = stage._vae.encode(to_unit(edge_frames(frames)))
    torch.testing.assert_close(latents, expected)
    assert not torch.allclose(latents, stage.run(EncodeFootage(footage(), 0, VIDEO, None), Silent()).video, atol=0.1)
