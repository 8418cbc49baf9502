"""what `tests/conftest.py` promises: in tests, a value of the wrong shape is caught where it enters"""

import io

import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image

from aiprod_components.diffusion.samplers import euler
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, run_plan
from aiprod_components.pipelines import PIPELINES, parse_request
from aiprod_components.values import Latents, Picture, Video

FAMILY = make_family("miniature")
STAGES = LocalStages(FAMILY, device=torch.device("cpu"))


def test_a_value_of_the_wrong_shape_cannot_be_made() -> None:
    with pytest.raises(TypeCheckError):
        Latents(torch.zeros(1, 64, 4, 4))


def test_a_function_of_diffusion_refuses_unlike_shapes() -> None:
    level = torch.ones(1)
    with pytest.raises(TypeCheckError):
        euler(torch.zeros(1, 2), velocity=torch.zeros(1, 3), sigma=level, next_sigma=level)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("strength", [None, 1.0, 0.5], ids=["text", "first_frame", "half_a_first_frame"])
def test_every_pipeline_runs_with_its_shapes_checked(pipeline: str, strength: float | None) -> None:
    image = None if strength is None else {"picture": picture(), "strength": strength}
    asked = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 96, "num_inference_steps": 2, "seed": 1, "image": image}
    video = run_plan(parse_request({"pipeline": pipeline, **asked}, family=FAMILY).plan(FAMILY), stages=STAGES)
    assert isinstance(video, Video)
    assert (video.shape.num_frames, video.shape.height, video.shape.width) == (5, 64, 96)


def picture() -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (80, 70), (200, 0, 0)).save(file, "PNG")
    return Picture(file.getvalue())
