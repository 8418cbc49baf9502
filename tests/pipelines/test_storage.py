"""A request outlives the process that read it: what is stored plans the same steps, to the last bit of every number."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiprod_components.errors import InvalidRequestError, UnknownModelError
from aiprod_components.families import make_family
from aiprod_components.pipelines import PIPELINES, fields_of, parse_request
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.derived import extend_request
from aiprod_components.pipelines.storage import dump_request, load_request, needs_media
from aiprod_components.plan import identify
from aiprod_components.values import Footage, FootageShape, Picture, Sound
from tests.bodies import footage

MINIATURE = make_family("miniature")
FAMILY = replace(MINIATURE, grid=replace(MINIATURE.grid, audio_rate=25.0))  # as if it made sound: enough for a plan
LONG_FOOTAGE = footage(num_frames=65)
PICTURE, OTHER = Picture(b"a picture"), Picture(b"another")
THIRD = 1 / 3
SHARED: dict[str, Any] = {
    "prompt": "a big red ball, “quoted”, 球\n",
    "next_prompts": ["a cube", "a star"],
    "num_frames": 65,
    "height": 96,
    "width": 96,
    "frame_rate": 24000 / 1001,
    "seed": 2**63 - 1,
    "image": {"picture": PICTURE, "strength": 0.1 + 0.2},
    "double_frame_rate": True,
    "extends": [33],
}
GUIDED: dict[str, Any] = {
    **SHARED,
    "loras": [{"name": "distilled", "scale": -THIRD}],
    "negative_prompt": "blur",
    "guidance_scale": 2 + THIRD,
    "guidance_rescale": THIRD,
    "guidance_interval": [0.1, 0.7],
    "skip_guidance": {"scale": THIRD, "blocks": [1, 3]},
    "projected_guidance": {"parallel": -0.0, "threshold": 1e-300, "momentum": -THIRD},
    "sampler": "heun",
    "sigmas": [1.0, THIRD, 5e-324, 0.0],
}
UPSCALED = {"upscale": 1.5}
TEXT_TO_AUDIO = PIPELINES["text_to_audio"]
FULL: dict[str, dict[str, Any]] = {
    "ti2vid_two_stages": {**GUIDED, **UPSCALED},
    "ti2vid_one_stage": GUIDED,
    "distilled": {**SHARED, **UPSCALED},
    "ic_lora": {
        **SHARED,
        **UPSCALED,
        "reference_video": {"footage": Footage(LONG_FOOTAGE), "strength": THIRD},
        "control": "canny",
        "control_scale": -THIRD,
    },
    "audio_to_video": {**GUIDED, **UPSCALED, "sound": {"sound": Sound(b"a sound", 3 + THIRD)}},
    "text_to_audio": {name: value for name, value in GUIDED.items() if name not in TEXT_TO_AUDIO.idle},
    "retake": {
        **{name: value for name, value in GUIDED.items() if name != "image"},
        "reference_video": {"footage": Footage(LONG_FOOTAGE), "strength": THIRD},
        "from_seconds": THIRD,
        "to_seconds": 1 + THIRD,
        "keep_sound": False,
    },
    "keyframe_interpolation": {
        **GUIDED,
        **UPSCALED,
        "keyframes": [{"picture": OTHER, "frame": 8, "strength": THIRD}, {"picture": PICTURE, "frame": 20}],
    },
}
# `sigmas` are said in place of two, the miniature has no language model and makes no sound, a long video is an mp4, and some pipelines have
# their own LoRAs.
SILENT = {"modality_guidance_scale", "audio_guidance"}
UNSAID = {"pipeline", "num_inference_steps", "scheduler", "enhance_prompt", "output_format", "loras", *SILENT}


def stored_and_loaded(request: VideoRequest) -> VideoRequest:
    record, media = dump_request(request)
    return load_request(json.loads(json.dumps(record)), media=media.__getitem__, family=FAMILY)


def identities(request: VideoRequest) -> dict[str, str]:
    return identify(request.plan(FAMILY), fingerprint="weights")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_request_with_every_field_comes_back_as_it_was(pipeline: str):
    request = parse_request({"pipeline": pipeline, **FULL[pipeline]}, family=FAMILY)
    loaded = stored_and_loaded(request)
    assert loaded == request and type(loaded) is type(request)
    assert repr(loaded) == repr(request)  # 1 and 1.0, 0.0 and -0.0 are equal
    assert identities(loaded) == identities(request)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_field_of_a_pipeline_is_among_those(pipeline: str):
    unsaid = UNSAID | ({"image"} if pipeline == "retake" else set())
    assert fields_of(pipeline).keys() - FULL[pipeline].keys() <= unsaid


def needed(pipeline: str) -> dict[str, Any]:
    return {
        name: FULL[pipeline][name]
        for name in ("reference_video", "sound", "keyframes", "from_seconds", "to_seconds")
        if name in FULL[pipeline]
    }


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_smallest_request_comes_back_with_the_seed_that_was_drawn(pipeline: str):
    request = parse_request({"pipeline": pipeline, "prompt": "a", **needed(pipeline)}, family=FAMILY)
    assert stored_and_loaded(request) == request


def test_each_medium_is_stored_once_by_its_content_and_none_is_in_the_record():
    record, media = dump_request(parse_request({"pipeline": "keyframe_interpolation", **FULL["keyframe_interpolation"]}, family=FAMILY))
    assert media == {PICTURE.digest: PICTURE.data, OTHER.digest: OTHER.data}
    text = json.dumps(record)
    assert PICTURE.digest in text and "a picture" not in text and len(text) < 5000


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_record_tells_whether_media_are_needed_to_load_it(pipeline: str):
    for fields in (FULL[pipeline], needed(pipeline)):
        record, media = dump_request(parse_request({"pipeline": pipeline, "prompt": "a", **fields}, family=FAMILY))
        assert needs_media(json.loads(json.dumps(record))) == bool(media)


def test_what_is_known_of_footage_is_kept_with_it():
    known = Footage(LONG_FOOTAGE, FootageShape(64, 64, 65 / 16, 16.0))
    request = parse_request({"prompt": "a", "reference_video": {"footage": known}}, family=FAMILY)
    loaded = getattr(stored_and_loaded(request), "reference_video").footage  # noqa: B009
    assert (loaded.data, loaded.shape) == (known.data, known.shape)


def test_an_extension_is_stored_like_any_other():
    source = parse_request({"pipeline": "distilled", "prompt": "a ball", "seed": 1}, family=FAMILY)
    longer = extend_request(source, prompt="a cube", num_frames=24, family=FAMILY)
    assert identities(stored_and_loaded(longer)) == identities(longer)


def test_a_field_that_is_newer_than_a_record_has_its_default():
    record, _ = dump_request(parse_request({"prompt": "a"}, family=FAMILY))
    for name in ("extends", "width", "guidance_scale"):
        del record[name]
    loaded = load_request(record, media={}.__getitem__, family=FAMILY)
    assert (loaded.extends, loaded.width, getattr(loaded, "guidance_scale")) == ((), 128, 3.0)  # noqa: B009


def test_what_no_code_understands_any_more_is_refused_by_name():
    record, media = dump_request(parse_request({"prompt": "a", "image": {"picture": PICTURE}}, family=FAMILY))
    with pytest.raises(InvalidRequestError, match="sharpness is not a field"):
        load_request({**record, "sharpness": 3}, media=media.__getitem__, family=FAMILY)
    with pytest.raises(UnknownModelError, match="'time_travel' is unknown"):
        load_request({**record, "pipeline": "time_travel"}, media=media.__getitem__, family=FAMILY)
    with pytest.raises(KeyError, match=PICTURE.digest):
        load_request(record, media={}.__getitem__, family=FAMILY)
