"""bodies -> requests, or errors in the client's names"""

import asyncio
import base64
import io
import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from PIL import Image
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import Request

from aiprod_components.calls import DecodeVideo, Denoise, Guidance, Sampling
from aiprod_components.errors import AiprodError, InvalidMediaError, InvalidRequestError, UnknownModelError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.media import sandbox
from aiprod_components.pipelines import PIPELINES, pipelines_of
from aiprod_components.pipelines.base import GuidedRequest, VideoRequest
from aiprod_components.plan import PlanBuilder
from aiprod_components.values import VideoShape
from deployments.api.body import parse_form, parse_json, read_body
from deployments.api.catalogue import describe_plan, list_models
from deployments.api.wire import Asked, Wire, in_wire_names
from tests.bodies import footage, picture
from tests.media.test_sounds import sound_file, tone

FAMILY = make_family("miniature")
WIRE = Wire({"miniature": FAMILY})


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def asked(**fields: Any) -> Asked:
    return WIRE.read(parse_json(json.dumps({"prompt": "a red ball", **fields}).encode()))


def asked_by_form(*items: tuple[str, str | bytes]) -> Asked:
    return WIRE.read(parse_form([("prompt", "a red ball"), *items]))


def calls_named(start: str, asked: Asked) -> list[str]:
    return [step.name for step in asked.plan.steps if step.name.startswith(start)]


def test_a_prompt_is_enough() -> None:
    request = asked().request
    assert isinstance(request, GuidedRequest)
    assert (request.prompt, request.video, request.num_inference_steps) == ("a red ball", FAMILY.video, 30)


def test_every_field_in_json() -> None:
    request = asked(
        model="miniature",
        pipeline="ti2vid_one_stage",
        size="64x96",
        num_frames=5,
        fps=8,
        num_inference_steps=2,
        guidance_scale=2,
        negative_prompt="blur",
        seed=7,
        input_reference={"image_url": data_url(picture())},
        image_strength=0.5,
    ).request
    assert isinstance(request, GuidedRequest)
    assert (request.pipeline, request.width, request.height, request.num_frames, request.frame_rate) == ("ti2vid_one_stage", 64, 96, 5, 8.0)
    assert (request.num_inference_steps, request.guidance_scale, request.negative_prompt, request.seed) == (2, 2.0, "blur", 7)
    assert request.image is not None and (request.image.picture.data, request.image.strength) == (picture(), 0.5)


def test_a_form_says_the_same_as_json() -> None:
    by_form = asked_by_form(
        ("size", "64x96"), ("num_frames", "5"), ("fps", "8"), ("seed", "7"), ("guidance_scale", "1.5"), ("input_reference", picture())
    )
    by_json = asked(size="64x96", num_frames=5, fps=8, seed=7, guidance_scale=1.5, input_reference={"image_url": data_url(picture())})
    assert by_form.request == by_json.request and by_form.plan == by_json.plan


def test_a_bracketed_field_of_a_form_is_a_nested_one() -> None:
    request = asked_by_form(("input_reference[image_url]", data_url(picture()))).request
    assert request.image is not None and request.image.picture.data == picture()


def test_media_say_which_pipeline_is_meant_as_files_and_in_the_body() -> None:
    url = f"data:video/mp4;base64,{base64.b64encode(footage(num_frames=33)).decode()}"
    scales = [("reference_strength", "0.5"), ("control_scale", "0.8")]
    by_form = asked_by_form(("reference_video", footage(num_frames=33)), *scales, ("seed", "1"))
    by_json = asked(reference_video={"video_url": url}, reference_strength=0.5, control_scale=0.8, seed=1)
    assert by_form.plan == by_json.plan and by_form.request.pipeline == "ic_lora"


def test_keyframes_name_the_files_of_their_body() -> None:
    sent = json.dumps([{"frame": 0, "file": "first"}, {"frame": 32, "file": "last", "strength": 0.5}])
    by_form = asked_by_form(("keyframes", sent), ("first", picture()), ("last", picture()), ("seed", "1"))
    url = data_url(picture())
    by_json = asked(keyframes=[{"frame": 0, "image_url": url}, {"frame": 32, "image_url": url, "strength": 0.5}], seed=1)
    assert by_form.plan == by_json.plan and by_form.request.pipeline == "keyframe_interpolation"


def test_a_file_that_several_keyframes_name_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[sandbox.Task] = []
    monkeypatch.setattr(sandbox, "_give", lambda child, tasks, give=sandbox._give: given.extend(tasks) or give(child, tasks))
    sent = json.dumps([{"frame": frame, "file": "k"} for frame in range(0, 33, 4)])
    assert len(calls_named("keyframe", asked_by_form(("keyframes", sent), ("k", picture())))) == 2
    assert len(given) == 1


CONTENT_TYPES = {
    "application/json": b'{"seed": 1}',
    "Application/JSON ; charset=UTF-8": b'{"seed": 1}',
    "application/json; charset*": b'{"seed": 1}',
    "application/json; a*": b'{"seed": 1}',
    "application/x-www-form-urlencoded; charset=utf-8": b"seed=1",
    "application/json; charset=utf-16": None,
    "application/json; charset": None,
    "text/plain": None,
    ";;;": None,
    "": None,
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_content_type_is_understood_or_refused(content_type: str) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": CONTENT_TYPES[content_type] or b"{}", "more_body": False}

    request = Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)
    if CONTENT_TYPES[content_type] is None:
        with pytest.raises(HTTPException) as caught:
            asyncio.run(read_body(request))
        assert caught.value.status_code == 415
    else:
        assert asyncio.run(read_body(request)).fields.keys() == {"seed"}


def test_what_is_null_is_not_there() -> None:
    assert asked(reference_video=None, keyframes=None, input_reference=None).request.pipeline == "ti2vid_two_stages"


def test_a_list_of_texts_in_a_form_is_texts() -> None:
    request = asked_by_form(("num_frames", "65"), ("next_prompts[]", "123"), ("next_prompts[]", "[red] ball")).request
    assert request.next_prompts == ("123", "[red] ball")


def test_groups_and_lists_come_in_a_form_as_json_or_in_brackets() -> None:
    by_json = asked(skip_guidance={"scale": 1.5, "blocks": [2, 3]}, sigmas=[1, 0.5, 0], loras=[{"name": "distilled", "scale": 0.5}], seed=1)
    loras = ("loras", '[{"name": "distilled", "scale": 0.5}]')
    by_form = asked_by_form(("skip_guidance", '{"scale": 1.5, "blocks": [2, 3]}'), ("sigmas", "[1, 0.5, 0]"), loras, ("seed", "1"))
    by_brackets = asked_by_form(
        ("skip_guidance[scale]", "1.5"), ("skip_guidance[blocks]", "[2, 3]"), ("sigmas[]", "1"), ("sigmas[]", "0.5"), ("sigmas[]", "0"),
        loras, ("seed", "1"),
    )  # fmt: skip
    assert by_json.plan == by_form.plan == by_brackets.plan


def test_a_reference_of_another_aspect_is_refused() -> None:
    with pytest.raises(InvalidMediaError, match="crop it to 64x64"):
        asked_by_form(("reference_video", footage(96, 64, num_frames=33)))


@pytest.mark.parametrize(("seconds", "frames"), [(2, 29), ("2", 29), ("2.1", 33), (0.01, 1), (1, 13), (4.0625, 65)])
def test_seconds_are_the_most_frames_that_last_no_longer(seconds: float | str, frames: int) -> None:
    assert asked(seconds=seconds).request.num_frames == frames


def test_the_model_may_name_the_pipeline() -> None:
    assert asked(model="miniature/ti2vid_one_stage").request.pipeline == "ti2vid_one_stage"


REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt", "at least 1 character"),
    "a blank prompt": ({"prompt": " \t\u200b"}, "prompt", "describe what the video shows"),
    "a model that is no name": ({"model": 5}, "model", "must be a string, got 5; the models are miniature"),
    "a pipeline that is null": ({"pipeline": None}, "pipeline", f"one of {', '.join(PIPELINES)}, or left out"),
    "a bare string for a picture": ({"input_reference": "a.png"}, "input_reference", "or a file in a multipart body, got 'a.png'"),
    "a long prompt": ({"prompt": "x" * 501}, "prompt", "at most 500 bytes"),
    "a size off the grid": ({"size": "100x64"}, "size", "width must be a multiple of 32 for this pipeline, got 100; nearest is 96"),
    "a size beyond the limit": ({"size": "64x512"}, "size", "height must be 32 to 256, got 512"),
    "a size in words": ({"size": "large"}, "size", "must be WIDTHxHEIGHT in pixels, such as \"128x128\", got 'large'"),
    "no frames": ({"num_frames": 0}, "num_frames", "must be 1 to 241, got 0"),
    "10,000 frames": ({"num_frames": 10_000}, "num_frames", "must be 1 to 241, got 10000"),
    "frames off the grid": ({"num_frames": 30}, "num_frames", "nearest is 29"),
    "NaN": ({"guidance_scale": float("nan")}, "guidance_scale", "finite number, got nan"),
    "infinity": ({"fps": float("inf")}, "fps", "finite number, got inf"),
    "NaN seconds": ({"seconds": float("nan")}, "seconds", "got nan"),
    "too many seconds": ({"seconds": 16}, "seconds", "must be at most 15.06 at 16 fps, got 16"),
    "no seconds": ({"seconds": "0"}, "seconds", "greater than 0"),
    "seconds and frames": ({"seconds": 1, "num_frames": 5}, "seconds", "leave one out"),
    "too fast": ({"fps": 1000}, "fps", "fps: Input should be less than or equal to 120, got 1000"),
    "too many steps": ({"num_inference_steps": 101}, "num_inference_steps", "must be 1 to 100 steps, got 101"),
    "half a step": ({"num_inference_steps": 2.5}, "num_inference_steps", "got 2.5"),
    "a seed that is no number": ({"seed": True}, "seed", "got True"),
    "a number as text": ({"num_frames": "5"}, "num_frames", "got '5'"),
    "an unknown field": ({"colour": "red"}, "colour", "the fields are model, seconds, priority, webhook_url, size"),
    "a request's own name": ({"frame_rate": 8}, "frame_rate", "is not a field"),
    "an address": ({"input_reference": {"image_url": "https://example.org/a.png"}}, "input_reference.image_url", "must be a data: URL"),
    "a stored file": ({"input_reference": {"file_id": "f", "image_url": data_url(b"")}}, "input_reference.file_id", "leave it out"),
    "broken base64": ({"input_reference": {"image_url": "data:image/png;base64,#"}}, "input_reference.image_url", "not base64"),
    "base64 in another script": ({"input_reference": {"image_url": "data:image/png;base64,é"}}, "input_reference.image_url", "not base64"),
    "a video at an address": ({"reference_video": {"video_url": "http://a.b/c"}}, "reference_video.video_url", "must be a data: URL"),
    "no video at all": ({"reference_video": {"video_url": "data:video/mp4;base64,"}}, "reference_video", "empty"),
    "a picture for a video": ({"reference_video": {"video_url": data_url(picture())}}, "reference_video", "mp4, mov or webm"),
    "strength without a video": ({"pipeline": "ic_lora", "reference_strength": 0.5}, "reference_strength", "send reference_video too"),
    "a keyframe without a picture": ({"keyframes": [{"frame": 0}]}, "keyframes.0", "either image_url or file"),
    "a keyframe beyond the end": ({"keyframes": [{"frame": 40, "image_url": data_url(picture())}]}, "keyframes", "0 to 32"),
    "two keyframes on a frame": (
        {"keyframes": [{"frame": 4, "image_url": data_url(picture())}] * 2},
        "keyframes",
        "give each its own frame",
    ),
    "a keyframe's file that is not there": ({"keyframes": [{"frame": 4, "file": "a.png"}]}, "keyframes.0.file", "no file of this body"),
    "a keyframe's file that is a field": ({"keyframes": [{"frame": 4, "file": "input_reference"}]}, "keyframes.0.file", "another name"),
    "no keyframe at all": ({"keyframes": []}, "keyframes", "at least 1"),
    "a keyframe that is no picture": ({"keyframes": [{"frame": 4, "image_url": data_url(b"text")}]}, "keyframes.0", "not a picture"),
    "a thousand noise levels": ({"sigmas": [1] * 3000}, None, "more than 2000 values"),
    "a LoRA that is not there": ({"loras": [{"name": "noir"}]}, "loras", "there is canny, distilled"),
    "a LoRA's scale": ({"loras": [{"name": "canny", "scale": -3}]}, "loras.0.scale", "greater than or equal to -2"),
    "strength without a picture": ({"image_strength": 0.5}, "image_strength", "send input_reference too"),
    "two pipelines": ({"model": "miniature/ti2vid_one_stage", "pipeline": "ti2vid_two_stages"}, "pipeline", "leave one out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_met_is_refused_by_name_with_the_way_out(case: str) -> None:
    fields, field, message = REFUSED[case]
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.field == field and message in caught.value.message


@pytest.mark.parametrize("fields", [{"model": "sora-2"}, {"model": "miniature/one"}, {"pipeline": "one"}], ids=str)
def test_a_model_that_is_not_served_is_not_found(fields: dict[str, Any]) -> None:
    with pytest.raises(UnknownModelError):
        asked(**fields)


FORMS: dict[str, tuple[tuple[str, str | bytes], str, str]] = {
    "a word for a number": (("num_frames", "five"), "num_frames", "got 'five'"),
    "a number with a line in it": (("num_frames", "1_3"), "num_frames", "valid integer, got '1_3'"),
    "a number after a space": (("seed", " 7"), "seed", "valid integer, got ' 7'"),
    "a whole number with a point": (("seed", "7.0"), "seed", "valid integer, got 7.0"),
    "a fraction with a line in it": (("guidance_scale", "1_0.5"), "guidance_scale", "valid number, got '1_0.5'"),
    "NaN": (("guidance_scale", "nan"), "guidance_scale", "valid number, got 'nan'"),
    "a number that begins with a nought": (("seed", "007"), "seed", "valid integer, got '007'"),
    "a list that is cut": (("loras", '[{"name": "canny"}'), "loras", "is not JSON"),
    "a list of other things": (("loras", "[1]"), "loras.0", "got 1"),
    "a file that nobody named": (("portrait", b"x"), "portrait", "must be text, got a file"),
    "a field and a list of it": (("prompt[]", "b"), "prompt", "given twice"),
    "a field given twice": (("prompt", "again"), "prompt", "given twice"),
    "a file for text": (("negative_prompt", b"x"), "negative_prompt", "must be text, got a file"),
    "an unknown field": (("colour", "red"), "colour", "the fields are"),
    "an address": (("input_reference[image_url]", "http://127.0.0.1/"), "input_reference.image_url", "must be a data: URL"),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_form_is_read_as_strictly(case: str) -> None:
    item, field, message = FORMS[case]
    with pytest.raises(InvalidRequestError) as caught:
        asked_by_form(item)
    assert caught.value.field == field and message in caught.value.message


def wide() -> bytes:
    file = io.BytesIO()
    Image.new("1", (30_000, 2)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"a text", "not a picture"), (picture()[:-30], "damaged"), (wide(), "at most 8192 pixels a side")],
    ids=["text", "cut", "wide"],
)
def test_a_picture_that_is_none_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidMediaError) as caught:
        asked_by_form(("input_reference", data))
    assert caught.value.field == "input_reference" and message in caught.value.message


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"{", b"\xff", b'{"prompt": "\\ud800"}', b'{"a":' + b"[" * 9000, b'{"seed": ' + b"9" * 9000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        WIRE.read(parse_json(data))


def test_a_span_in_a_form_means_a_retake_of_the_size_and_length_that_the_video_has() -> None:
    span = (("from_seconds", "0.25"), ("to_seconds", "0.5"))
    retake = asked_by_form(("reference_video", footage(96, 64, num_frames=17)), *span)
    assert (retake.request.pipeline, retake.request.video) == ("retake", VideoShape(17, 64, 96, 16.0))
    inherited = (("size", "96x64"), ("num_frames", "9"), ("fps", "16.0"))  # as an edit of a finished video says
    assert asked_by_form(("reference_video", footage(96, 64, num_frames=17)), *span, *inherited).request.video == VideoShape(
        9, 64, 96, 16.0
    )
    with pytest.raises(InvalidRequestError, match=r"to_seconds must be at most 1\.06"):
        asked_by_form(("reference_video", footage(96, 64, num_frames=17)), span[0], ("to_seconds", "3"))


def test_a_sound_comes_as_a_file_or_in_the_body_and_makes_a_video_as_long() -> None:
    wire = Wire({"miniature": replace(FAMILY, grid=replace(FAMILY.grid, audio_rate=25.0))})
    data = sound_file(tone(2.1))
    url = "data:audio/wav;base64," + base64.b64encode(data).decode()
    by_form = wire.read(parse_form([("prompt", "a ball"), ("seed", "1"), ("sound", data)]))
    by_json = wire.read(parse_json(json.dumps({"prompt": "a ball", "seed": 1, "sound": {"audio_url": url}}).encode()))
    assert by_form.plan == by_json.plan and by_form.request == by_json.request
    assert (by_form.request.pipeline, by_form.request.num_frames) == ("audio_to_video", 33)
    with pytest.raises(InvalidRequestError, match=r"sound is not a sound; send a wav"):
        wire.read(parse_form([("prompt", "a ball"), ("sound", b"la la la")]))
    with pytest.raises(InvalidRequestError, match="for families with sound, and miniature has none") as caught:
        WIRE.read(parse_form([("prompt", "a ball"), ("sound", data)]))
    assert caught.value.field == "pipeline"


@pytest.mark.parametrize(("field", "sent"), [("height", "size"), ("frame_rate", "fps"), ("image", "input_reference"), ("prompt", "prompt")])
def test_an_error_from_a_stage_leaves_in_the_client_s_words(field: str, sent: str) -> None:
    error: AiprodError = in_wire_names(InvalidRequestError(f"{field} is wrong", field=field))
    assert error.field == sent and error.message.startswith(sent)


def test_the_models_say_all_that_may_be_asked() -> None:
    (model,) = list_models(WIRE)["data"]
    assert (model["id"], model["object"], set(model["pipelines"])) == ("miniature", "model", set(pipelines_of(FAMILY)))
    for name, pipeline in model["pipelines"].items():
        fields = pipeline["fields"]["properties"]
        assert {"model", "seconds", "size", "fps", "input_reference", "image_strength", "prompt"} <= set(fields)
        assert not {"height", "width", "frame_rate", "image"} & set(fields)
        assert (fields["size"]["default"], fields["fps"]["default"], fields["model"]["default"]) == ("128x128", 16.0, f"miniature/{name}")
    required = {name: set(pipeline["fields"]["required"]) for name, pipeline in model["pipelines"].items()}
    assert required["ic_lora"] == {"prompt", "reference_video"} and required["keyframe_interpolation"] == {"prompt", "keyframes"}
    assert required["retake"] == {"prompt", "reference_video", "from_seconds", "to_seconds"}
    assert required["ti2vid_two_stages"] == required["distilled"] == {"prompt"}
    assert 2.0 in model["abilities"]["upscale"] and model["abilities"]["double_frame_rate"] and not model["abilities"]["enhance_prompt"]
    assert (model["limits"]["max_frames"], model["grid"], model["licence"]) == (
        241,
        {"time": 4, "space": 16, "channels": 64, "audio_rate": 0.0},
        FAMILY.licence,
    )


class Sketch(VideoRequest, frozen=True):
    """A pipeline that the wire has never heard of: one step, at a size of its own."""

    pipeline: Literal["sketch"] = "sketch"
    roughness: int = Field(default=3, ge=1)

    @property
    def space_multiple(self) -> int:
        return 1

    def record(self, steps: PlanBuilder, family: Family) -> None:
        (prompt,) = self.encode_prompts(steps, family)
        draft = steps.add("draft", Denoise(prompt, self.video, Sampling((1.0, 0.0), Guidance(), self.seed)))
        steps.add("video", DecodeVideo((draft,), self.video))


def test_a_new_pipeline_is_asked_for_and_described_without_a_change_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "sketch", Sketch)
    wire = Wire({"miniature": FAMILY})
    body = {"model": "miniature/sketch", "prompt": "a ball", "roughness": 5}
    assert wire.read(parse_json(json.dumps(body).encode())).request.pipeline == "sketch"
    with pytest.raises(InvalidRequestError, match="roughness"):
        wire.read(parse_json(json.dumps({**body, "roughness": 0}).encode()))
    (model,) = list_models(wire)["data"]
    assert model["pipelines"]["sketch"]["fields"]["properties"]["roughness"]["minimum"] == 1


def test_a_plan_says_its_work_before_it_is_done() -> None:
    plan = describe_plan(asked(num_frames=5, size="64x64", num_inference_steps=2, seed=3))
    assert [step["name"] for step in plan["steps"]] == ["prompt", "draft", "doubled", "refined", "video"] and plan["seed"] == 3
    works = [step["work"] for step in plan["steps"]]
    assert plan["totals"]["network_calls"] == sum(work["network_calls"] for work in works)
    assert plan["totals"]["tokens"] == sum(work["network_calls"] * work["tokens"] for work in works)
    json.dumps(plan)
