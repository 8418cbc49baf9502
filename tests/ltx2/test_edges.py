"""At the edges of what can be asked: one frame, the shortest sound, a picture of one row, fresh noise, unlike requests in one batch"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf
from PIL import Image

from aiprod_components.calls import Denoise, EncodePicture, EncodeSound, Guidance, Sampling
from aiprod_components.local import Silent
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import fill
from aiprod_components.stages.ltx2.flow import LTX2FlowStage
from aiprod_components.stages.ltx2.flow_state import Held, JointState, Stream
from aiprod_components.stages.ltx2.vae_encoder import LTX2VAEEncoder
from aiprod_components.values import AudioLatents, Footage, Latents, Picture, Sound, Video, VideoShape
from tests.ltx2.desk import Desk, calls_of
from tests.ltx2.test_retake import film
from tests.media.test_sounds import sound_file, tone

SMALL: dict[str, Any] = {"prompt": "rain on a roof", "height": 64, "width": 64, "seed": 5, "num_inference_steps": 2}
Desks = Callable[..., Desk]


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_fresh_noise_is_as_strong_as_a_token_is_free(strength: float) -> None:
    """Half of the tokens are held to what they are, and the network sees through all the noise."""
    draws = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(1, 4096, 8, generator=draws), torch.randn(1, 4096, 8, generator=draws)
    free = torch.ones(1, 4096, 1)
    free[:, 2048:] = 1 - strength
    sampling = Sampling((1.0, 0.6, 0.3, 0.0), Guidance(), 0, "euler_ancestral")
    stream = Stream((1 - free) * clean + free * noise)
    for done, (sigma, following) in enumerate(((1.0, 0.6), (0.6, 0.3), (0.3, 0.0))):
        walk = stream.walk(sampling, done, held=Held(1 - free, clean), generator=draws)
        assert next(walk).sigma.item() == pytest.approx(sigma)
        with pytest.raises(StopIteration) as end:
            walk.send((stream.x - clean) / sigma)
        stream = Stream(end.value.value.x)
        left = stream.x - (1 - free * following) * clean
        for half in (slice(0, 2048), slice(2048, None)):
            assert left[:, half].std().item() == pytest.approx(float(free[0, half][0]) * following, rel=0.03, abs=1e-5)


def test_a_picture_is_held_by_a_sampler_that_draws_noise(desk: Desks) -> None:
    here = desk("2.3")
    image = {"picture": Picture(png(64, 64))}
    asked = {
        **SMALL,
        "pipeline": "ti2vid_one_stage",
        "num_frames": 9,
        "num_inference_steps": 3,
        "image": image,
        "sampler": "euler_ancestral",
    }
    stage, state = started(here, here.ask(**asked))
    tokens, held = 2 * 2, cast(Held, state.held)
    while state.done < state.total:
        (state,) = stage.step([state])
        assert torch.allclose(state.pictures.x[:, :tokens], held.clean[:, :tokens], atol=1e-6)
        assert state.done == state.total or state.pictures.x[:, tokens:].std() > 0.1


def started(here: Desk, request: VideoRequest) -> tuple[LTX2FlowStage, JointState]:
    plan = request.plan(here.family)
    results: dict[str, Any] = {}
    for step in plan.steps:
        if isinstance(step.call, Denoise):
            break
        results[step.name] = here.stages[step.call.stage].run(fill(step.call, results), Silent())
    stage = cast(LTX2FlowStage, here.stages["denoiser"])
    return stage, stage.start(cast(Denoise, fill(calls_of(plan)["draft"], results)))


def test_requests_of_one_batch_that_leave_out_other_blocks_come_out_as_alone(desk: Desks) -> None:
    here = desk("2.3")
    asked = {**SMALL, "pipeline": "ti2vid_one_stage", "num_frames": 1, "guidance_scale": 1, "modality_guidance_scale": 1}
    stage, one = started(here, here.ask(**asked, skip_guidance={"scale": 5, "blocks": [0]}, audio_guidance={}))
    skipping = replace(one.sampling.guidance, stg_blocks=(1,))
    other = replace(one, sampling=replace(one.sampling, guidance=skipping))
    together = stage.step([one, other])
    alone = [stage.step([state])[0] for state in (one, other)]
    for beside, apart in zip(together, alone, strict=True):
        assert torch.allclose(beside.pictures.x, apart.pictures.x, atol=1e-5)
    assert not torch.allclose(alone[0].pictures.x, alone[1].pictures.x, atol=1e-3), "or this says nothing"


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
@pytest.mark.parametrize("frame_rate", [24.0, 60.0])
def test_the_sound_of_one_frame_is_one_audio_latent(version: str, frame_rate: float, desk: Desks) -> None:
    call = EncodeSound(Sound(sound_file(tone(0.02))), 0.0, VideoShape(1, 64, 64, frame_rate))
    heard = cast(AudioLatents, desk(version).stages["audio_encoder"].run(call, Silent())).audio
    assert heard.shape == (1, 8, 1, 16) and heard.isfinite().all()


@pytest.mark.parametrize(
    "asked",
    [
        {"pipeline": "ti2vid_one_stage", "frame_rate": 60},
        {"pipeline": "audio_to_video", "height": 128, "frame_rate": 60, "sound": {"sound": Sound(sound_file(tone(0.02)))}},
        {
            "pipeline": "retake",
            "from_seconds": 0,
            "to_seconds": 0.04,
            "reference_video": {"footage": Footage(film())},
        },
    ],
    ids=["fast", "to a sound", "of a film with sound"],
)
def test_one_frame_is_made(asked: dict[str, Any], desk: Desks) -> None:
    here = desk("2.3")
    video = cast(Video, here.run(here.ask(**{**SMALL, **asked}, num_frames=1, output_format="mp4").plan(here.family))["video"])
    assert video.shape.num_frames == 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (40, 1)])
def test_a_picture_of_one_row_of_pixels_is_a_picture(width: int, height: int, desk: Desks) -> None:
    call = EncodePicture(Picture(png(width, height)), 64, 64)
    made = cast(Latents, desk("2.3").stages["vae_encoder"].run(call, Silent())).video
    assert made.shape == (1, 128, 1, 2, 2) and made.isfinite().all()


def test_a_picture_of_another_aspect_is_cut_to_its_middle_and_not_stretched(desk: Desks) -> None:
    """Unlike diffusers' `LTX2ImageToVideoPipeline`, whose bits are the same for a picture of the video's aspect alone."""
    here, file = desk("2.3"), png(256, 64)
    stage = cast(LTX2VAEEncoder, here.stages["vae_encoder"])
    made = stage._picture(EncodePicture(Picture(file), 64, 128))
    shown = Image.fromarray(apply_image_conditioning_crf(np.array(Image.open(io.BytesIO(file))), here.family.version.picture_crf))
    middle, stretched = (np.array(each) for each in (shown.crop((64, 0, 192, 64)), shown.resize((128, 64), Image.Resampling.BILINEAR)))
    pixels = ((made[0, :, 0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert np.array_equal(pixels, middle) and not np.array_equal(pixels, stretched)


def png(width: int, height: int) -> bytes:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()
