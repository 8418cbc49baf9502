"""settings -> the same request, whether this process reads them or the server does"""

import json

import pytest

from aiprod_client import VideoSettings, inprocess
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from deployments.api.body import parse_json
from deployments.api.wire import Wire

FAMILY = make_family("miniature")
WIRE = Wire({FAMILY.name: FAMILY})


@pytest.mark.parametrize(
    "settings",
    [
        VideoSettings(seed=1),
        VideoSettings(seed=1, model="miniature"),
        VideoSettings(seed=1, model="miniature/ti2vid_one_stage"),
        VideoSettings(seed=1, pipeline="ti2vid_one_stage"),
        VideoSettings(seed=1, size="64x96", num_frames=5, fps=8.0),
        VideoSettings(seed=1, num_inference_steps=2, guidance_scale=1.0, negative_prompt="blur"),
    ],
    ids=str,
)
def test_the_same_settings_are_the_same_request(settings: VideoSettings) -> None:
    asked = WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
    request = inprocess.request_of("a red ball", settings, family=FAMILY)
    assert request == asked.request
    assert request.plan(FAMILY) == asked.plan


@pytest.mark.parametrize("strength", [None, 0.25])
def test_the_same_picture_is_the_same_request(png: bytes, strength: float | None) -> None:
    settings = VideoSettings(seed=1, image=png, image_strength=strength)
    asked = WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
    assert inprocess.request_of("a red ball", settings, family=FAMILY) == asked.request


@pytest.mark.parametrize(
    "settings",
    [VideoSettings(num_frames=30), VideoSettings(size="big"), VideoSettings(pipeline="magic"), VideoSettings(image=b"not a picture")],
    ids=["num_frames", "size", "pipeline", "image"],
)
def test_what_the_server_refuses_this_process_refuses(settings: VideoSettings) -> None:
    with pytest.raises(InvalidRequestError):
        inprocess.request_of("a red ball", settings, family=FAMILY).plan(FAMILY)
    with pytest.raises(InvalidRequestError):
        WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
