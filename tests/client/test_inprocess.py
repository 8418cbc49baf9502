"""settings -> the same request, whether this process reads them or the server does"""

import json

import pytest

from aiprod_client import Keyframe, VideoSettings, inprocess
from aiprod_components.calls import Denoise, LoraUse
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.plan import Plan
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
        VideoSettings(seed=1, num_inference_steps=2, guidance_scale=2.0, negative_prompt="blur"),
    ],
    ids=str,
)
def test_the_same_settings_are_the_same_request(settings: VideoSettings) -> None:
    asked = WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
    here = inprocess.understand("a red ball", settings, family=FAMILY)
    assert (here.request, here.plan) == (asked.request, asked.plan)


@pytest.mark.parametrize("strength", [None, 0.25])
def test_the_same_picture_is_the_same_request(png: bytes, strength: float | None) -> None:
    settings = VideoSettings(seed=1, image=png, image_strength=strength)
    asked = WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
    assert inprocess.understand("a red ball", settings, family=FAMILY).request == asked.request


@pytest.mark.parametrize(
    "settings",
    [
        VideoSettings(num_frames=30),
        VideoSettings(size="big"),
        VideoSettings(size="9" * 5000 + "x64"),
        VideoSettings(fps=1000.0),
        VideoSettings(guidance_scale=float("nan")),
        VideoSettings(pipeline="magic"),
        VideoSettings(model=""),
        VideoSettings(model="miniature/ti2vid_one_stage", pipeline="ti2vid_two_stages"),
        VideoSettings(image_strength=0.5),
    ],
    ids=lambda settings: ",".join(settings.body("")),
)
def test_what_the_server_refuses_this_process_refuses_by_the_same_name(settings: VideoSettings) -> None:
    def plan_here() -> Plan:
        family = inprocess.family_of(settings, weights=None)
        return inprocess.understand("a red ball", settings, family=family).plan

    with pytest.raises(InvalidRequestError) as here:
        plan_here()
    with pytest.raises(InvalidRequestError) as there:
        WIRE.read(parse_json(json.dumps(settings.body("a red ball")).encode()))
    assert here.value.field == there.value.field


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_strength_out_of_range_is_named_as_it_was_given(png: bytes, strength: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"^image_strength: "):
        inprocess.understand("a red ball", VideoSettings(image=png, image_strength=strength), family=FAMILY)


@pytest.mark.parametrize("name", ["prompt", "num_frames", "loras"])
def test_a_field_that_is_given_twice_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"more gives {name}, which is given already"):
        VideoSettings(num_frames=33, loras={"distilled": 1.0}, more={name: 65}).body("a red ball")


def test_pictures_in_between_and_loras_and_other_fields_are_in_the_request(png: bytes) -> None:
    settings = VideoSettings(keyframes=(Keyframe(png, 0), Keyframe(png, 16, 0.5)), loras={"distilled": 0.5}, more={"sampler": "heun"})
    asked = inprocess.understand("a red ball", settings, family=FAMILY)
    assert asked.request.pipeline == "keyframe_interpolation"
    draft = next(step.call for step in asked.plan.steps if step.name == "draft")
    assert isinstance(draft, Denoise)
    assert [(guide.frame, guide.strength) for guide in draft.guides] == [(16, 0.5)]
    assert (draft.loras, draft.sampling.sampler) == ((LoraUse("distilled", 0.5),), "heun")
