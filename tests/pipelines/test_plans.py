"""Every pipeline's plan, as one golden line each, and what it refuses."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from aiprod_components.calls import (
    DecodeAudio,
    Denoise,
    EncodePicture,
    EncodePrompt,
    EnhancePrompt,
    Guidance,
    LoraUse,
    Pin,
    Projection,
    SoundPin,
)
from aiprod_components.diffusion.schedulers import SCHEDULERS
from aiprod_components.errors import AiprodError, InvalidRequestError, UnknownModelError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.pipelines import PIPELINES, parse_request, pipelines_of
from aiprod_components.pipelines.derived import extend_request
from aiprod_components.plan import Plan, Ref, cost_of, describe
from aiprod_components.values import Footage, Picture, Sound, VideoShape
from tests.bodies import footage

FAMILY = make_family("miniature")
SOUNDING = replace(FAMILY, grid=replace(FAMILY.grid, audio_rate=25.0))  # as if it made sound: enough for a plan
PICTURE = Picture(b"a picture")
OTHER_PICTURE = Picture(b"another picture")
IMAGE = {"picture": PICTURE}
TWO_STAGES = (
    "prompt:text_encoder() draft:denoiser(prompt) doubled:upsampler(draft) refined:refiner(prompt doubled) video:vae_decoder(refined)"
)

GOLDEN = {
    "ti2vid_two_stages": TWO_STAGES,
    "ti2vid_one_stage": "prompt:text_encoder() draft:denoiser(prompt) video:vae_decoder(draft)",
    "distilled": TWO_STAGES,
    "ic_lora": (
        "prompt:text_encoder() reference:vae_encoder() draft:denoiser(prompt reference) doubled:upsampler(draft) "
        "refined:refiner(prompt doubled) video:vae_decoder(refined)"
    ),
    "retake": "prompt:text_encoder() source:vae_encoder() draft:denoiser(prompt source) video:vae_decoder(draft)",
    "audio_to_video": (
        "prompt:text_encoder() heard:audio_encoder() draft:denoiser(prompt heard) doubled:upsampler(draft) "
        "refined:refiner(prompt doubled heard) sound:audio_encoder() video:vae_decoder(refined sound)"
    ),
    "text_to_audio": "prompt:text_encoder() draft:denoiser(prompt) sound:audio_decoder(draft)",
    "keyframe_interpolation": (
        "prompt:text_encoder() keyframe_half_1:vae_encoder() keyframe_half_2:vae_encoder() "
        "keyframe_1:vae_encoder() keyframe_2:vae_encoder() "
        "draft:denoiser(prompt keyframe_half_1 keyframe_half_2) doubled:upsampler(draft) "
        "refined:refiner(prompt doubled keyframe_1 keyframe_2) video:vae_decoder(refined)"
    ),
}


# What a pipeline cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "ic_lora": {"reference_video": {"footage": Footage(footage(num_frames=33))}},
    "audio_to_video": {"sound": {"sound": Sound(b"a sound", 33 / 16)}},
    "retake": {"reference_video": {"footage": Footage(footage(128, 128, num_frames=33))}, "from_seconds": 0.5, "to_seconds": 1},
    "keyframe_interpolation": {"keyframes": [{"picture": PICTURE, "frame": 0}, {"picture": OTHER_PICTURE, "frame": 16}]},
}


def plan_of(family: Family = FAMILY, /, **record: Any) -> Plan:
    return parse_request({"prompt": "a big red ball bounces", "seed": 1, **record}, family=family).plan(family)


def calls_of(plan: Plan) -> dict[str, Any]:
    return {step.name: step.call for step in plan.steps}


def line(plan: Plan) -> str:
    return " ".join(f"{step.name}:{step.call.stage}({' '.join(step.inputs)})" for step in plan.steps)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_makes_the_calls_of_its_golden_line(pipeline: str):
    family = SOUNDING if PIPELINES[pipeline].needs_sound else FAMILY
    assert line(plan_of(family, pipeline=pipeline, **NEEDED.get(pipeline, {}))) == GOLDEN[pipeline]


def test_a_sound_makes_a_video_as_long_as_it_is_in_chunks_and_extensions_have_sounds_of_their_own():
    request = parse_request({"prompt": "a ball", "sound": {"sound": Sound(b"", 4.1)}}, family=SOUNDING)
    calls = calls_of(request.plan(SOUNDING))
    assert (request.num_frames, request.pipeline, calls["sound"].video) == (65, "audio_to_video", request.video)
    assert [calls[name].start for name in ("heard", "heard_2", "heard_3")] == [0.0, 38 / 25, 3.0]
    assert [pin.part for pin in calls["refined_2"].sound_pins] == [(38, 52), (0, 52)], "that before it, then all of it"
    longer = calls_of(extend_request(request, prompt="a cube", num_frames=24, family=SOUNDING).plan(SOUNDING))
    assert longer["draft_4"].sound_pins == (SoundPin(Ref("draft_3"), 0, (13, 27)),) and "heard_4" not in longer
    assert isinstance(longer["sound"], DecodeAudio) and longer["sound"].heard == (0, 14, 15, 14)


def test_a_family_without_sound_is_not_asked_for_any():
    assert set(PIPELINES) - set(pipelines_of(FAMILY)) == {"audio_to_video", "text_to_audio"}
    assert set(pipelines_of(SOUNDING)) == set(PIPELINES)


def test_a_request_that_names_no_pipeline_gets_the_one_that_its_fields_mean():
    assert plan_of().pipeline == "ti2vid_two_stages"
    assert plan_of(**NEEDED["ic_lora"]).pipeline == "ic_lora"
    assert plan_of(**NEEDED["ic_lora"], image=IMAGE).pipeline == "ic_lora"
    assert plan_of(**NEEDED["retake"]).pipeline == "retake"
    assert plan_of(**NEEDED["keyframe_interpolation"]).pipeline == "keyframe_interpolation"


def test_a_single_frame_is_a_still_unless_a_video_is_asked_for():
    assert calls_of(plan_of(num_frames=1))["video"].container == "png"
    assert calls_of(plan_of(num_frames=1, output_format="webp"))["video"].container == "webp"
    assert calls_of(plan_of(num_frames=1, output_format="mp4"))["video"].container == "mp4"
    assert calls_of(plan_of())["video"].container == "mp4"


def test_distilled_asks_the_network_eight_times_where_guided_asks_sixty():
    guided, distilled = calls_of(plan_of())["draft"], calls_of(plan_of(pipeline="distilled"))
    assert guided.sampling.network_calls == 60
    assert distilled["draft"].sampling.network_calls == 8
    assert distilled["draft"].loras == (LoraUse("distilled", 1.0),)
    assert distilled["prompt"].negative_prompt is None


def test_a_reference_guides_stage_one_alone_and_a_first_frame_is_pinned_beside_it():
    calls = calls_of(plan_of(**NEEDED["ic_lora"], image=IMAGE))
    (guide,) = calls["draft"].guides
    assert (guide.video.num_frames, guide.video.height, guide.frame, guide.strength) == (33, 64, 0, 1.0)
    assert calls["reference"].control == "canny"
    assert calls["draft"].loras == (LoraUse("distilled", 1.0), LoraUse("canny", 1.0))
    assert calls["draft"].sampling.network_calls == 8
    assert [len(calls[name].pins) for name in ("draft", "refined")] == [1, 1]
    assert calls["refined"].guides == ()


def test_a_keyframe_of_frame_zero_is_pinned_and_the_others_stand_beside_the_latents():
    calls = calls_of(plan_of(keyframes=[{"picture": OTHER_PICTURE, "frame": 20, "strength": 0.5}], image=IMAGE))
    for name, size in (("draft", 64), ("refined", 128)):
        assert [pin.frame for pin in calls[name].pins] == [0]
        assert [(g.frame, g.strength, g.video.height, g.video.num_frames) for g in calls[name].guides] == [(20, 0.5, size, 1)]


def test_a_picture_at_several_frames_is_encoded_once_for_each_stage():
    calls = calls_of(plan_of(keyframes=[{"picture": PICTURE, "frame": frame} for frame in (0, 8, 16)]))
    assert [name for name in calls if name.startswith("keyframe")] == ["keyframe_half_1", "keyframe_1"]
    assert [guide.latents for guide in calls["draft"].guides] == [Ref("keyframe_half_1")] * 2
    assert [pin.latents for pin in calls["refined"].pins] == [Ref("keyframe_1")]


def test_a_longer_video_is_made_in_chunks_that_begin_with_the_end_of_the_one_before():
    plan = plan_of(num_frames=65, keyframes=[{"picture": PICTURE, "frame": 40}], image=IMAGE)
    calls = calls_of(plan)
    assert [calls[name].video.num_frames for name in ("draft", "draft_2", "draft_3")] == [33, 33, 17]
    assert calls["draft_tail_2"].latent_frames == 3 and calls["draft_tail_2"].video.height == 64
    assert calls["draft_2"].pins == (Pin(Ref("draft_tail_2"), 0, 1.0),)
    assert calls["refined_2"].pins == (Pin(Ref("refined_tail_2"), 0, 1.0),)
    # Chunks begin at 0, 24 and 48: frame 40 is the second one's frame 16, and nobody else's.
    assert [guide.frame for guide in calls["draft_2"].guides] == [16]
    assert calls["draft"].guides == () and calls["draft_3"].guides == ()
    assert calls["video"].overlap == 9 and len(calls["video"].clips) == 3
    assert len({calls[name].sampling.seed for name in ("draft", "draft_2", "draft_3")}) == 3


@pytest.mark.parametrize(("upscale", "side", "draft", "network"), [(1.5, 96, 64, "3_2"), (0.75, 96, 128, "3_4"), (4, 128, 32, "4_1")])
def test_a_draft_may_be_of_other_sizes(upscale: float, side: int, draft: int, network: str):
    family = make_family("aiprod", weights="random")
    request = parse_request({"prompt": "a ball", "upscale": upscale, "height": side, "width": side, "num_frames": 5}, family=family)
    calls = calls_of(request.plan(family))
    assert (calls["draft"].video.height, calls["refined"].video.height) == (draft, side)
    assert calls["doubled"].network == f"upsampler_{network}"


def test_a_draft_that_is_larger_than_the_family_makes_is_refused():
    family = make_family("aiprod", weights="random")
    request = parse_request({"prompt": "a ball", "upscale": 0.75, "height": 1056, "width": 1920, "num_frames": 5}, family=family)
    with pytest.raises(InvalidRequestError, match=r"upscale 0\.75 makes a draft that cannot be: width must be"):
        request.plan(family)


def test_frames_between_frames_are_made_of_the_finished_latents_of_every_chunk():
    family = make_family("aiprod", weights="random")
    record = {"prompt": "a ball", "num_frames": 113, "height": 64, "width": 64, "frame_rate": 24, "double_frame_rate": True}
    calls = calls_of(parse_request(record, family=family).plan(family))
    assert calls["twice_as_many"].video == VideoShape(193, 64, 64, 48.0)
    assert calls["video"].clips == (Ref("twice_as_many"), Ref("twice_as_many_2"))
    assert (calls["video"].video.num_frames, calls["video"].video.frame_rate, calls["video"].overlap) == (225, 48.0, 17)


def test_chunks_have_prompts_of_their_own_and_the_last_goes_on_to_the_end():
    calls = calls_of(plan_of(num_frames=81, next_prompts=["a big blue ball bounces"]))
    assert [calls[name].prompt_embeds for name in ("draft", "draft_2", "draft_3")] == [Ref("prompt"), Ref("prompt_2"), Ref("prompt_2")]
    assert calls["prompt_2"].prompt == "a big blue ball bounces"


def test_an_enhanced_prompt_carries_on_from_those_before_it(tmp_path: Path):
    family = make_family("miniature", prompt_enhancer=str(tmp_path))
    record = {"prompt": "a ball", "seed": 1, "num_frames": 81, "enhance_prompt": True}
    calls = calls_of(parse_request(record, family=family).plan(family))
    assert calls["enhanced"] == EnhancePrompt("a ball")
    assert calls["enhanced_3"] == EnhancePrompt("a ball", (Ref("enhanced"), Ref("enhanced_2")))
    assert [calls[name].prompt for name in ("prompt", "prompt_2", "prompt_3")] == [Ref("enhanced"), Ref("enhanced_2"), Ref("enhanced_3")]


def test_guidance_of_every_kind_is_in_the_plan_and_counted():
    guided = {"guidance_scale": 3, "skip_guidance": {"scale": 1, "blocks": [2]}, "projected_guidance": {"threshold": 2}}
    sampling = calls_of(plan_of(**guided, guidance_rescale=0.5, num_inference_steps=10))["draft"].sampling
    assert sampling.guidance == Guidance(3.0, 0.5, 1.0, (2,), Projection(0.0, 2.0, -0.5))
    assert sampling.network_calls == 30
    narrowed = calls_of(plan_of(**guided, guidance_interval=[0.2, 0.8], sigmas=[1, 0.9, 0.7, 0.3, 0.1, 0]))["draft"].sampling
    assert narrowed.sigmas == (1.0, 0.9, 0.7, 0.3, 0.1, 0.0)
    assert narrowed.network_calls == 1 + 1 + 3 + 3 + 1
    assert calls_of(plan_of(sampler="heun", num_inference_steps=10))["draft"].sampling.network_calls == 38


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_request_chooses_its_schedule(scheduler: str):
    sigmas = calls_of(plan_of(scheduler=scheduler, num_inference_steps=6))["draft"].sampling.sigmas
    assert len(sigmas) == 7 and sigmas[0] == 1.0 and sigmas[-1] == 0.0


def test_an_addition_of_a_pipeline_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "slideshow").mkdir()
    (tmp_path / "slideshow" / "__init__.py").write_text(
        '''"""prompt -> latents -> video: a pipeline that this house does not know"""
from typing import Literal
from aiprod_components.calls import DecodeVideo, Denoise, Guidance, Sampling
from aiprod_components.pipelines.base import VideoRequest

class Slideshow(VideoRequest, frozen=True):
    """Three steps and no refinement."""
    pipeline: Literal["slideshow"] = "slideshow"
    pace: int = 3
    @property
    def space_multiple(self):
        return 1
    def record(self, steps, family):
        (prompt,) = self.encode_prompts(steps, family)
        sigmas = tuple(1 - step / self.pace for step in range(self.pace)) + (0.0,)
        draft = steps.add("draft", Denoise(prompt, self.video, Sampling(sigmas, Guidance(), self.seed)))
        steps.add("video", DecodeVideo((draft,), self.video))
''',
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PIPELINES, "slideshow", importlib.import_module("slideshow").Slideshow)
    plan = plan_of(pipeline="slideshow", pace=5)
    assert line(plan) == GOLDEN["ti2vid_one_stage"]
    assert calls_of(plan)["draft"].sampling.network_calls == 5
    with pytest.raises(InvalidRequestError, match="pace"):
        plan_of(pipeline="slideshow", pace="fast")


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


def test_a_video_costs_more_with_every_frame_step_and_pixel_and_as_much_with_each_chunk():
    smallest_first = [{"num_frames": 1}, {}, {"num_inference_steps": 60}, {"width": 256}]
    costs = [cost_of(plan_of(**asked)) for asked in smallest_first]
    assert costs[0] > 0 and costs == sorted(set(costs))
    two, five, eight = (cost_of(plan_of(num_frames=9 + 24 * chunks)) for chunks in (2, 5, 8))
    assert eight - five == pytest.approx(five - two, rel=1e-3)


@pytest.mark.parametrize(
    ("record", "field", "way_out"),
    [
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": "x" * 501}, "prompt", "at most 500 bytes"),
        ({"num_frames": 30}, "num_frames", "nearest is 29"),
        ({"num_frames": 0}, "num_frames", "1 to 241"),
        ({"num_frames": 10_000}, "num_frames", "1 to 241"),
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
        ({"pipeline": "distilled", "guidance_scale": 3}, "guidance_scale", "not a field of this pipeline"),
        ({"output_format": "png"}, "output_format", "ask for mp4, or for one frame"),
        ({"sampler": "leapfrog"}, "sampler", "one of euler, "),
        ({"scheduler": "bus"}, "scheduler", "one of shifted_flow, "),
        ({"sigmas": [1, 0.5, 0.7, 0]}, "sigmas", "fall"),
        ({"sigmas": [0.5, 0]}, "sigmas", "begin with 1"),
        ({"sigmas": [1, 0], "num_inference_steps": 9}, "sigmas", "num_inference_steps says nothing"),
        ({"sigmas": [1, 0], "scheduler": "karras"}, "sigmas", "scheduler says nothing"),
        ({"guidance_scale": 1, "negative_prompt": "blur"}, "negative_prompt", "guidance_scale is 1; raise it"),
        ({"guidance_scale": 1, "projected_guidance": {}}, "projected_guidance", "guidance_scale is 1; raise it"),
        ({"guidance_scale": 1, "guidance_rescale": 0.5}, "guidance_rescale", "guidance_scale is 1; raise it"),
        ({"guidance_scale": 1, "guidance_interval": [0.2, 0.5]}, "guidance_interval", "guidance_scale is 1; raise it"),
        ({"num_frames": 1, "double_frame_rate": True}, "double_frame_rate", "num_frames is 1"),
        ({"guidance_interval": [0.8, 0.2]}, "guidance_interval", "the lower one first"),
        ({"guidance_interval": [float("nan"), 0.2]}, "guidance_interval", "from 0 to 1"),
        ({"skip_guidance": {"scale": 1, "blocks": [5]}}, "skip_guidance", "0 to 4"),
        ({"skip_guidance": {"scale": 1, "blocks": []}}, "skip_guidance.blocks", "at least 1"),
        ({"projected_guidance": {"momentum": 1}}, "projected_guidance.momentum", "less than 1"),
        ({"loras": [{"name": "noir"}]}, "loras", "there is canny, distilled"),
        ({"loras": [{"name": "distilled", "scale": 3}]}, "loras.0.scale", "less than or equal to 2"),
        ({"loras": [{"name": "distilled"}, {"name": "distilled"}]}, "loras", "twice"),
        ({"loras": [{"name": "distilled"}], "pipeline": "distilled"}, "loras", "this pipeline's own"),
        ({"loras": [{"name": "canny"}]}, "loras", "with a reference_video instead"),
        ({"pipeline": "keyframe_interpolation"}, "keyframes", "required"),
        ({"keyframes": []}, "keyframes", "at least 1"),
        ({"keyframes": [{"picture": PICTURE, "frame": 33}]}, "keyframes", "0 to 32 in a video of 33 frames, got 33"),
        ({"keyframes": [{"picture": PICTURE, "frame": -1}]}, "keyframes.0.frame", "greater than or equal to 0"),
        ({"keyframes": [{"picture": PICTURE, "frame": 8}] * 2}, "keyframes", "two pictures are for frame 8"),
        ({"keyframes": [{"picture": PICTURE, "frame": 0}], "image": IMAGE}, "keyframes", "two pictures are for frame 0"),
        ({"upscale": 3}, "upscale", "one of 2, 1.5, 0.75, 4"),
        ({"upscale": 1.5}, "height", "multiple of 48"),
        ({"pipeline": "ti2vid_one_stage", "upscale": 2}, "upscale", "not a field of this pipeline"),
        ({"next_prompts": ["a cube"]}, "next_prompts", "at most 0 for 33 frames"),
        ({"next_prompts": [" "], "num_frames": 65}, "next_prompts.0", "says nothing"),
        ({"enhance_prompt": True}, "enhance_prompt", "needs a language model"),
        ({"pipeline": "ic_lora"}, "reference_video", "required"),
        ({**NEEDED["ic_lora"], "width": 64}, "reference_video", "crop it to 32x64"),
        ({**NEEDED["ic_lora"], "num_frames": 65}, "reference_video", "ask for num_frames at most"),
        ({**NEEDED["ic_lora"], "control": "depth"}, "control", "there is canny"),
        ({**NEEDED["ic_lora"], "control": "distilled"}, "control", "there is canny"),
        ({**NEEDED["ic_lora"], "control_scale": 9}, "control_scale", "less than or equal to 2"),
        ({**NEEDED["ic_lora"], "loras": [{"name": "canny"}]}, "loras", "with a reference_video instead"),
        (NEEDED["audio_to_video"], "pipeline", "for families with sound, and miniature has none; name another model"),
        ({"pipeline": "audio_to_video"}, "sound", "required"),
        ({"sound": {"sound": b"bytes"}}, "sound.sound", "wav, mp3, aac"),
        ({**NEEDED["retake"], "to_seconds": 2.5}, "to_seconds", "at most 2.062, the end of the video, got 2.5"),
        (
            {**NEEDED["retake"], "from_seconds": 1.5},
            "from_seconds",
            "than 2.062, the end of the video, got 1.5 and 1",
        ),
        ({**NEEDED["retake"], "from_seconds": -1}, "from_seconds", "greater than or equal to 0"),
        ({**NEEDED["retake"], "keep_sound": True}, "keep_sound", "miniature makes none; leave it out"),
        ({**NEEDED["retake"], "image": IMAGE}, "image", "stays as it is where from_seconds is 0.5"),
        ({**NEEDED["retake"], "width": 64}, "reference_video", "crop it to 64x128"),
        ({**NEEDED["retake"], "num_frames": 65}, "reference_video", "ask for num_frames at most"),
        ({"pipeline": "retake", "from_seconds": 0, "to_seconds": 1}, "reference_video", "required"),
        ({**NEEDED["ic_lora"], "pipeline": "retake"}, "from_seconds", "required"),
        ({**NEEDED["ic_lora"], "pipeline": "ti2vid_two_stages"}, "reference_video", "not a field of this pipeline"),
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


def test_a_sound_that_is_shorter_than_the_video_is_refused():
    with pytest.raises(InvalidRequestError, match=r"sound must last 2\.06 s .* got 1\.00 s; ask for num_frames at most 17") as caught:
        plan_of(SOUNDING, sound={"sound": Sound(b"", 1.0)}, num_frames=33)
    assert caught.value.field == "sound"


def test_every_refusal_is_of_the_error_tree():
    with pytest.raises(AiprodError):
        plan_of(prompt=None)
