"""Every pipeline's plan, as one golden line each, and what it refuses."""

from typing import Any, cast

import pytest

from aiprod_components.calls import Denoise, EncodePicture, EncodePrompt
from aiprod_components.errors import AiprodError, InvalidRequestError, UnknownModelError
from aiprod_components.families import make_family
from aiprod_components.pipelines import PIPELINES, parse_request
from aiprod_components.plan import Plan, describe
from aiprod_components.values import Picture

FAMILY = make_family("miniature")
IMAGE = {"picture": Picture(b"a picture")}

GOLDEN = {
    "ti2vid_two_stages": (
        "prompt:text_encoder() draft:denoiser(prompt) doubled:upsampler(draft) refined:refiner(prompt doubled) video:vae_decoder(refined)"
    ),
    "ti2vid_one_stage": "prompt:text_encoder() draft:denoiser(prompt) video:vae_decoder(draft)",
}


def plan_of(**record: Any) -> Plan:
    return parse_request({"prompt": "a big red ball bounces", "seed": 1, **record}, family=FAMILY).plan(FAMILY)


def line(plan: Plan) -> str:
    return " ".join(f"{step.name}:{step.call.stage}({' '.join(step.inputs)})" for step in plan.steps)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_makes_the_calls_of_its_golden_line(pipeline: str):
    assert line(plan_of(pipeline=pipeline)) == GOLDEN[pipeline]


def test_a_request_that_names_no_pipeline_gets_two_stages():
    assert plan_of().pipeline == "ti2vid_two_stages"


def test_a_first_frame_is_encoded_at_both_sizes_and_pinned_in_both_stages():
    plan = plan_of(image=IMAGE)
    steps = {step.name: step for step in plan.steps}
    half, full = (cast(EncodePicture, steps[name].call) for name in ("first_frame_half", "first_frame"))
    assert (half.height, full.height) == (64, 128)
    assert steps["draft"].inputs == ("prompt", "first_frame_half")
    assert steps["refined"].inputs == ("prompt", "doubled", "first_frame")


def test_the_draft_is_half_the_size_and_the_network_calls_are_those_of_the_request():
    steps = {step["name"]: step for step in describe(plan_of(num_inference_steps=30))["steps"]}
    assert steps["draft"]["arguments"]["video"] == {"num_frames": 33, "height": 64, "width": 64, "frame_rate": 16.0}
    assert steps["draft"]["work"]["network_calls"] == 60
    assert steps["draft"]["work"]["tokens"] == 144
    assert steps["refined"]["work"] == {"network_calls": 3, "tokens": 576, "output_bytes": 576 * 64 * 4}


def test_without_guidance_there_is_no_negative_prompt_and_half_the_network_calls():
    steps = {step.name: step.call for step in plan_of(guidance_scale=1).steps}
    assert cast(EncodePrompt, steps["prompt"]).negative_prompt is None
    assert cast(Denoise, steps["draft"]).sampling.network_calls == 30


def test_the_same_request_gives_the_same_plan():
    assert plan_of() == plan_of()


@pytest.mark.parametrize(
    ("record", "field", "way_out"),
    [
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": "x" * 501}, "prompt", "at most 500 bytes"),
        ({"num_frames": 30}, "num_frames", "nearest is 29"),
        ({"num_frames": 0}, "num_frames", "1 to 65"),
        ({"num_frames": 10_000}, "num_frames", "1 to 65"),
        ({"height": 100}, "height", "nearest is 96"),
        ({"width": 80}, "width", "multiple of 32"),
        ({"width": 4096}, "width", "32 to 256"),
        ({"guidance_scale": float("nan")}, "guidance_scale", "finite"),
        ({"guidance_scale": 0}, "guidance_scale", "greater than or equal to 1"),
        ({"num_inference_steps": 0}, "num_inference_steps", "greater than or equal to 1"),
        ({"num_inference_steps": 101}, "num_inference_steps", "1 to 100"),
        ({"frame_rate": float("inf")}, "frame_rate", "finite"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"image": {"picture": Picture(b""), "strength": 1.5}}, "image.strength", "less than or equal to 1"),
        ({"image": {"picture": "holiday.png"}}, "image.picture", "PNG, JPEG or WebP"),
        ({"sharpness": 3}, "sharpness", "the fields are"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_field_and_the_way_out(record: dict[str, Any], field: str, way_out: str):
    with pytest.raises(InvalidRequestError) as caught:
        plan_of(**record)
    assert caught.value.field == field
    assert way_out in caught.value.message


def test_an_unknown_pipeline_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(UnknownModelError, match="ti2vid_two_stages, ti2vid_one_stage"):
        plan_of(pipeline="time_travel")


def test_a_seed_is_drawn_when_none_is_given_and_kept_in_the_request():
    seeds = {parse_request({"prompt": "a ball"}, family=FAMILY).seed for _ in range(3)}
    assert len(seeds) == 3


def test_every_refusal_is_of_the_error_tree():
    with pytest.raises(AiprodError):
        plan_of(prompt=None)
