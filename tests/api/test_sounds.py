"""a sound alone over HTTP -> a job without pictures, and what it refuses"""

from typing import Any

import pytest

from deployments.api.proto.messages import video_message
from deployments.api.wire import Wire
from tests.api.conftest import SOUNDING, WIRE, Desk, MakeDesk
from tests.bodies import image_url

RAIN = {"model": "sounding/text_to_audio", "prompt": "rain on a roof", "seconds": 2, "seed": 5}


@pytest.fixture
def sounding(make_desk: MakeDesk) -> Desk:
    return make_desk(Wire({**WIRE.families, SOUNDING.name: SOUNDING}))


def finished(desk: Desk, *, kind: str = "audio/mp4") -> dict[str, Any]:
    answer = desk.client().post("/v1/videos", json=RAIN)
    assert answer.status_code == 200, answer.text
    desk.finish(desk.claim(), b"a sound, so to speak", {"video": kind})
    return desk.client().get(f"/v1/videos/{answer.json()['id']}").json()


def test_a_sound_is_a_job_without_a_size(sounding: Desk) -> None:
    job = finished(sounding)
    assert (job["pipeline"], job["size"], job["seconds"], job["num_frames"], job["fps"]) == ("text_to_audio", None, "2", 32, 16.0)
    assert (job["status"], job["media_type"]) == ("completed", "audio/mp4")
    assert sounding.client().get("/v1/videos").json()["data"] == [job]
    message = video_message(job)
    assert (message.size, message.media_type) == ("", "audio/mp4")


@pytest.mark.parametrize("kind", ["audio/mp4", "audio/wav"])
def test_its_content_is_the_sound_and_there_is_no_picture_of_it(kind: str, sounding: Desk) -> None:
    job, client = finished(sounding, kind=kind), sounding.client()
    content = client.get(f"/v1/videos/{job['id']}/content")
    assert (content.content, content.headers["content-type"]) == (b"a sound, so to speak", kind)
    known = client.get(f"/v1/videos/{job['id']}/content", headers={"if-none-match": content.headers["etag"]})
    part = client.get(f"/v1/videos/{job['id']}/content", headers={"range": "bytes=2-6"})
    assert (known.status_code, part.status_code, part.content) == (304, 206, b"sound")
    for variant in ("thumbnail", "spritesheet"):
        absent = client.get(f"/v1/videos/{job['id']}/content", params={"variant": variant})
        assert absent.status_code == 404 and absent.json()["error"]["param"] == "variant"
        assert f"is a sound alone and has no {variant}" in absent.json()["detail"]


def test_it_is_neither_edited_nor_carried_on_but_made_anew_with_other_words(sounding: Desk) -> None:
    job, client = finished(sounding), sounding.client()
    video = {"video": {"id": job["id"]}, "prompt": "thunder"}
    edited = client.post("/v1/videos/edits", json=video)
    assert (edited.status_code, edited.json()["error"]["param"]) == (400, "video")
    assert "is a sound alone; fetch it, and send it as sound of a new video" in edited.json()["detail"]
    extended = client.post("/v1/videos/extensions", json={**video, "seconds": 2})
    assert (extended.status_code, extended.json()["error"]["param"]) == (400, "video")
    assert "a sound alone is not carried on; ask for a longer one" in extended.json()["detail"]
    remixed = client.post(f"/v1/videos/{job['id']}/remix", json={"prompt": "thunder"}).json()
    assert (remixed["pipeline"], remixed["seed"], remixed["seconds"], remixed["size"]) == ("text_to_audio", 5, "2", None)


@pytest.mark.parametrize(
    ("fields", "param", "way_out"),
    [
        ({"size": "64x64"}, "size", "not a field of this pipeline; the fields are model, seconds"),
        ({"input_reference": image_url(b"")}, "input_reference", "not a field"),
        ({"audio_guidance": {"scale": 7}}, "audio_guidance", "not a field"),
        ({"modality_guidance_scale": 3}, "modality_guidance_scale", "not a field"),
        ({"output_format": "mp4"}, "output_format", "one of m4a, wav"),
        ({"seconds": 100}, "seconds", "at most 15.06"),
        ({"model": "miniature/text_to_audio"}, "pipeline", "for families with sound, and miniature has none; name another model"),
    ],
)
def test_what_means_nothing_to_a_sound_is_refused(fields: dict[str, Any], param: str, way_out: str, sounding: Desk) -> None:
    refused = sounding.client().post("/v1/videos", json={**RAIN, **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert way_out in refused.json()["detail"]


def test_a_form_asks_for_one_too_to_any_length(sounding: Desk) -> None:
    form = {"model": "sounding/text_to_audio", "prompt": "rain", "seconds": "1.9", "fps": "10", "output_format": "wav"}
    job = sounding.client().post("/v1/videos", data=form).json()
    assert (job["seconds"], job["num_frames"]) == ("1.9", 19)


def test_nobody_gets_a_sound_who_does_not_name_the_pipeline(sounding: Desk) -> None:
    refused = sounding.client().post("/v1/videos", json={"model": "sounding", "prompt": "rain", "output_format": "m4a"})
    assert refused.status_code == 400 and "m4a and wav are made by pipeline text_to_audio" in refused.json()["detail"]
    fields = sounding.client().get("/v1/models").json()["data"][1]["pipelines"]["text_to_audio"]["fields"]["properties"]
    assert fields["output_format"]["default"] == "m4a" and "size" not in fields and "audio_guidance" not in fields
