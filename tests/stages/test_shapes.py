"""what `tests/conftest.py` promises: in tests, a value of the wrong shape is caught where it enters"""

import io

import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image

from aiprod_components.diffusion.conditioning import add_noise
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, run_plan
from aiprod_components.media.decode import decode_video
from aiprod_components.pipelines import parse_request, pipelines_of
from aiprod_components.values import Latents, Picture, Video
from tests.bodies import FIXED_STEPS, NUM_FRAMES, needed_in_process, picture

FAMILY = make_family("miniature")
STAGES = LocalStages(FAMILY, device=torch.device("cpu"))


def test_a_value_of_the_wrong_shape_cannot_be_made() -> None:
    with pytest.raises(TypeCheckError):
        Latents(torch.zeros(1, 64, 4, 4))


def test_a_function_of_diffusion_refuses_unlike_shapes() -> None:
    level = torch.ones(1)
    with pytest.raises(TypeCheckError):
        add_noise(torch.zeros(1, 2), noise=torch.zeros(1, 3), sigma=level)


@pytest.mark.parametrize("pipeline", pipelines_of(FAMILY))
@pytest.mark.parametrize("strength", [None, 1.0, 0.5], ids=["text", "first_frame", "half_a_first_frame"])
def test_every_pipeline_runs_with_its_shapes_checked(pipeline: str, strength: float | None) -> None:
    image = None if strength is None else {"picture": Picture(picture()), "strength": strength}
    needed = needed_in_process(pipeline)
    if pipeline == "keyframe_interpolation" and image is not None:
        needed = {"keyframes": needed["keyframes"][1:]}  # frame 0 is the first frame's
    steps = {} if pipeline in FIXED_STEPS else {"num_inference_steps": 2}
    asked = {"prompt": "a red ball", "num_frames": NUM_FRAMES, "height": 64, "width": 64, "seed": 1, "image": image, **steps, **needed}
    video = run_plan(parse_request({"pipeline": pipeline, **asked}, family=FAMILY).plan(FAMILY), stages=STAGES)
    assert isinstance(video, Video)
    assert (video.shape.num_frames, video.shape.height, video.shape.width) == (NUM_FRAMES, 64, 64)


def test_a_video_of_two_chunks_and_a_still_run_with_their_shapes_checked() -> None:
    asked = {"prompt": "a red ball", "height": 32, "width": 32, "num_inference_steps": 1, "seed": 1, "guidance_scale": 1}
    two = run_plan(parse_request({**asked, "num_frames": 37}, family=FAMILY).plan(FAMILY), stages=STAGES)
    assert len(decode_video(two.data)) == 37
    still = run_plan(parse_request({**asked, "num_frames": 1}, family=FAMILY).plan(FAMILY), stages=STAGES)
    assert still.media_type == "image/png"
    with Image.open(io.BytesIO(still.data)) as image:
        assert image.size == (32, 32)


@pytest.mark.parametrize(("upscale", "side"), [(1.5, 96), (0.75, 48), (4, 64)])
def test_a_draft_of_another_size_than_half_runs_with_its_shapes_checked(upscale: float, side: int) -> None:
    asked = {
        "prompt": "a red ball",
        "height": side,
        "width": side,
        "num_frames": 5,
        "num_inference_steps": 1,
        "seed": 1,
        "upscale": upscale,
    }
    video = run_plan(parse_request(asked, family=FAMILY).plan(FAMILY), stages=STAGES)
    assert (video.shape.height, video.shape.width) == (side, side)
