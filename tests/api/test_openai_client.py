"""the unmodified `openai` client -> every call of its `videos` -> a running server, failure and paging included"""

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import av
import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.api.receiver import receiving
from tests.bodies import footage, picture
from tests.graph import PATIENCE, Graph

pytestmark = [pytest.mark.timeout(PATIENCE + 60), pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")]

SMALL: dict[str, Any] = {"num_frames": 5, "num_inference_steps": 2}
SIZE: Any = "64x64"
MODEL: Any = "miniature"
# Neither is a value that OpenAI's own models take; its client sends them all the same.
ASKED: dict[str, Any] = {"model": MODEL, "size": SIZE}


@pytest.fixture(scope="module")
def client(graph: Graph) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{graph.url}/v1", api_key="none needed", max_retries=0, timeout=PATIENCE) as client:
        yield client


def make(client: OpenAI, prompt: str, **extra: Any) -> Any:
    """A finished small video."""
    video = client.videos.create_and_poll(prompt=prompt, **ASKED, extra_body={**SMALL, **extra})
    assert video.status == "completed", video.error
    return video


def frames_of(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def test_create_and_poll_with_a_file_and_extra_fields(client: OpenAI) -> None:
    file = ("first.png", picture(), "image/png")
    extra = {**SMALL, "seed": 11, "loras": [{"name": "distilled", "scale": 0.5}], "guidance_scale": 1.5, "negative_prompt": "blue"}
    video = client.videos.create(prompt="a red ball", input_reference=file, seconds="4", **ASKED, extra_body={**extra, "num_frames": None})
    assert (video.object, video.status, video.model, video.size, video.prompt) == ("video", "queued", "miniature", "64x64", "a red ball")
    assert isinstance(video.seconds, str) and 3.5 < float(video.seconds) <= 4.1
    client.videos.delete(video.id)
    done = client.videos.create_and_poll(prompt="a red ball", input_reference=file, **ASKED, extra_body=extra)
    assert (done.status, done.progress, done.error, done.to_dict()["seed"]) == ("completed", 100, None, 11)
    assert done.completed_at is not None and done.expires_at is not None and done.created_at <= done.completed_at < done.expires_at
    stages = {line["stage"] for line in done.to_dict()["stages"]}  # type: ignore[union-attr]
    assert stages == {"text_encoder", "vae_encoder", "denoiser", "upsampler", "refiner", "vae_decoder"}


def test_the_list_comes_in_pages_and_the_client_turns_them(client: OpenAI) -> None:
    made = [client.videos.create(prompt=f"a red ball, number {number}", **ASKED, extra_body=SMALL).id for number in range(5)]
    newest_first = [video.id for video in client.videos.list(limit=2)][:5]
    assert newest_first == made[::-1]
    pages, page = [], client.videos.list(limit=2, order="asc", after=made[0])
    for _ in range(2):
        pages.append([video.id for video in page.data])
        page = page.get_next_page() if page.has_next_page() else page
    assert pages == [made[1:3], made[3:5]]
    with pytest.raises(openai.NotFoundError, match="after"):
        client.videos.list(after="video_" + "0" * 32)


def test_every_variant_of_the_content(client: OpenAI) -> None:
    video = make(client, "a green star spins", num_frames=9)
    mp4 = client.videos.download_content(video.id).read()
    assert frames_of(mp4) == 9 and client.videos.download_content(video.id, variant="video").read() == mp4
    thumbnail = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read()))
    sheet = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="spritesheet").read()))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (64, 64)) and sheet.format == "JPEG" and min(sheet.size) >= 64
    raw = client.videos.with_raw_response.download_content(video.id, extra_headers={"Range": "bytes=4-7"})
    assert raw.status_code == 206 and raw.content == mp4[4:8] == b"ftyp"
    assert raw.headers["content-range"] == f"bytes 4-7/{len(mp4)}" and raw.headers["etag"]
    with pytest.raises(openai.APIStatusError) as beyond:
        client.videos.download_content(video.id, extra_headers={"Range": f"bytes={len(mp4)}-"})
    assert beyond.value.status_code == 416
    unknown: Any = "poster"
    with pytest.raises(openai.BadRequestError, match="variant: Input should be 'video', 'thumbnail'"):
        client.videos.download_content(video.id, variant=unknown)


def test_a_failed_video_is_an_answer_with_a_code(client: OpenAI) -> None:
    overflowing = [{"name": "overflow", "scale": 2}]
    video = client.videos.create_and_poll(prompt="a red ball", **ASKED, extra_body={**SMALL, "loras": overflowing})
    assert video.status == "failed" and video.error is not None and video.error.code == "not_finite"
    assert "lower guidance_scale" in video.error.message and client.videos.retrieve(video.id).status == "failed"
    with pytest.raises(openai.ConflictError, match="is failed"):
        client.videos.download_content(video.id)


def test_bad_requests_raise_what_the_client_promises(client: OpenAI) -> None:
    off_grid: Any = "100x64"
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(prompt="a red ball", model=MODEL, size=off_grid)
    body: Any = refused.value.body
    assert (refused.value.param, refused.value.code, body["param"]) == ("size", "invalid_request", "size")
    assert refused.value.response.headers["content-type"] == "application/problem+json" and refused.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("video_" + "0" * 32)
    unknown: Any = "sora-2"
    with pytest.raises(openai.NotFoundError) as absent:
        client.videos.create(prompt="a red ball", model=unknown)
    assert absent.value.code == "model_not_found"


def test_remix_keeps_seed_and_settings(client: OpenAI) -> None:
    source = make(client, "a red ball bounces", seed=5)
    remix = client.videos.poll(client.videos.remix(source.id, prompt="a blue ball bounces").id, poll_interval_ms=100)
    told = remix.to_dict()
    assert (remix.status, remix.remixed_from_video_id, remix.prompt) == ("completed", source.id, "a blue ball bounces")
    assert (told["seed"], told["num_frames"], remix.size) == (5, 5, "64x64")


def test_edit_follows_a_finished_and_an_uploaded_video(client: OpenAI) -> None:
    source = make(client, "a red ball", num_frames=9)
    placeholder: Any = b"x"
    with pytest.raises(openai.BadRequestError):
        client.videos.edit(prompt="a blue ball", video=placeholder)
    # The client's typed {"id": …} fails in the client itself, which wants a file; through extra_body it arrives.
    by_id = client.post("/videos/edits", body={"prompt": "a blue ball", "video": {"id": source.id}}, cast_to=type(source))
    uploaded = client.videos.edit(
        prompt="a blue ball", video=("clip.mp4", footage(), "video/mp4"), extra_body={"size": "64x64", "num_frames": 9}
    )
    for video in (by_id, uploaded):
        done = client.videos.poll(video.id, poll_interval_ms=100)
        assert (done.status, done.to_dict()["pipeline"]) == ("completed", "ic_lora"), done.error
    assert client.videos.retrieve(by_id.id).remixed_from_video_id == source.id


def test_extend_carries_on_and_keeps_the_source_s_frames(client: OpenAI) -> None:
    source = make(client, "a red ball bounces", num_frames=17)
    seconds: Any = "0.5"
    longer = client.post(
        "/videos/extensions", body={"prompt": "a red ball stops", "seconds": seconds, "video": {"id": source.id}}, cast_to=type(source)
    )
    done = client.videos.poll(longer.id, poll_interval_ms=100)
    told: Any = done.to_dict()
    assert done.status == "completed" and told["num_frames"] == 25, done.error
    assert frames_of(client.videos.download_content(done.id).read()) == 25
    hits = {line["step"] for line in told["stages"] if line["cache_hit"]}
    assert {"prompt", "draft", "refined"} <= hits  # the source's own steps, not made again


def test_delete_removes_the_video_and_its_files(client: OpenAI) -> None:
    video = make(client, "a red ball goes away")
    gone = client.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    for call in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
        with pytest.raises(openai.NotFoundError):
            call(video.id)


def test_a_live_video_is_deleted_and_a_cancelled_one_is_told_as_such(client: OpenAI) -> None:
    slow = {"num_frames": 33, "num_inference_steps": 100, "pipeline": "ti2vid_one_stage"}
    large: Any = "256x256"
    live = client.videos.create(prompt="a red ball", model=MODEL, size=large, extra_body=slow)
    assert client.videos.delete(live.id).deleted
    cancelled = client.videos.create(prompt="a red ball", model=MODEL, size=large, extra_body=slow)
    answer = client.post(f"/videos/{cancelled.id}/cancel", cast_to=type(cancelled))
    assert answer.status == "cancelled" and client.videos.poll(cancelled.id).status == "cancelled"


def test_characters_are_not_offered(client: OpenAI) -> None:
    for call in (lambda: client.videos.create_character(name="ball", video=b"x"), lambda: client.videos.get_character("ball")):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.code == "not_supported"


def test_raw_answers_tell_when_to_poll_and_bear_an_id(client: OpenAI) -> None:
    raw = client.videos.with_raw_response.create(prompt="a red ball", **ASKED, extra_body=SMALL)
    assert int(raw.headers["openai-poll-after-ms"]) > 0 and raw.headers["x-request-id"]
    again = client.videos.with_raw_response.retrieve(raw.parse().id)
    assert int(again.headers["openai-poll-after-ms"]) > 0


def test_the_same_idempotency_key_gives_the_same_video_once(client: OpenAI) -> None:
    key = f"key-{time.time_ns()}"
    answers = [
        client.videos.with_raw_response.create(prompt="a red ball", **ASKED, extra_body=SMALL, extra_headers={"Idempotency-Key": key})
        for _ in range(2)
    ]
    assert answers[0].parse().id == answers[1].parse().id
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    with pytest.raises(openai.UnprocessableEntityError):
        client.videos.create(prompt="a blue ball", **ASKED, extra_body=SMALL, extra_headers={"Idempotency-Key": key})


def test_webhooks_bear_a_signature_that_the_client_verifies(client: OpenAI, graph: Graph) -> None:
    with receiving() as receiver:
        video = make(client, "a red ball rings", webhook_url=receiver.url)
        headers, payload = receiver.next(timeout=60)
    from deployments.webhooks import webhook_secret

    secret = webhook_secret((graph.data / "pepper").read_bytes(), "local")
    client.webhooks.verify_signature(payload, headers, secret=secret)
    event = json.loads(payload)
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == ("video.completed", video.id, "completed")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(payload.replace(b"completed", b"cancelled"), headers, secret=secret)
