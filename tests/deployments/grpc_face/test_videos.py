"""each RPC, over a socket"""

import math

import pytest
from google.protobuf.json_format import MessageToDict

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from aiprod_client.settings import Keyframe, VideoSettings
from deployments.api.body import MAX_BYTES, MAX_VALUES
from deployments.api.catalogue import describe_plan
from deployments.api.proto.aiprod.v1.video_pb2 import (
    CreateVideoRequest,
    DownloadVideoRequest,
    EditVideoRequest,
    ExtendVideoRequest,
    Video,
)
from tests.bodies import picture
from tests.deployments.grpc_face.stand_in import FILE, PREVIEW, RECEIPT, STEP, StandInService

BALL = ask_for("a red ball")


def test_a_created_video_says_all_that_http_says_of_it(client: GrpcClient, service: StandInService) -> None:
    video = client.create(ask_for("a red ball", VideoSettings(size="128x64", num_frames=17, seed=2**63 - 1)))
    assert video.status == Video.QUEUED and video.id in service.videos
    said = MessageToDict(video, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    shown = {name: value for name, value in service.videos[video.id].items() if value is not None and name != "object"}
    assert {name: int(said[name]) for name in ("created_at", "num_frames", "seed", "queue_position")} == {
        name: shown[name] for name in ("created_at", "num_frames", "seed", "queue_position")
    }
    assert {name: said[name] for name in ("model", "pipeline", "prompt", "seconds", "size", "fps", "cost", "progress", "stages")} == {
        name: shown[name] for name in ("model", "pipeline", "prompt", "seconds", "size", "fps", "cost", "progress", "stages")
    }
    assert shown["size"] == "128x64" and shown["seed"] == 2**63 - 1 and said.keys() == shown.keys()


def test_a_request_becomes_the_body_that_http_would_have_read(client: GrpcClient, service: StandInService) -> None:
    settings = VideoSettings(
        num_frames=17,
        guidance_scale=3.0,
        image=picture(),
        keyframes=(Keyframe(picture(), 8),),
        more={"priority": 5, "next_prompts": ["it rains"], "double_frame_rate": False},
    )
    request = ask_for("a red ball", settings)
    request.settings["image_strength"] = 0.5
    request.settings["flow_guidance"] = None
    with pytest.raises(AiprodClientError):
        client.plan(request)
    (body,) = service.bodies
    assert body.is_json and body.files == {"input_reference": picture()}
    assert body.fields["keyframes"][0].pop("image_url").startswith("data:image/png;base64,")
    assert body.fields == {
        "prompt": "a red ball",
        "num_frames": 17,
        "guidance_scale": 3.0,
        "priority": 5,
        "keyframes": [{"frame": 8}],
        "next_prompts": ["it rains"],
        "double_frame_rate": False,
        "image_strength": 0.5,
        "flow_guidance": None,
    }
    assert type(body.fields["keyframes"][0]["frame"]) is int and type(body.fields["image_strength"]) is float


def test_what_is_not_set_is_not_in_the_body(client: GrpcClient, service: StandInService) -> None:
    client.create(CreateVideoRequest(prompt="a red ball", seed=0))
    assert service.bodies[0].fields == {"prompt": "a red ball", "seed": 0}
    with pytest.raises(AiprodClientError, match="prompt is required"):
        client.create(CreateVideoRequest())


def test_a_number_that_no_json_integer_is_stays_what_it_is(client: GrpcClient, service: StandInService) -> None:
    request = ask_for("a red ball")
    request.settings.update({"a": 2.0**53, "b": 2.0**60, "c": -0.5, "d": math.inf})
    with pytest.raises(AiprodClientError):
        client.plan(request)
    fields = service.bodies[0].fields
    assert [fields[name] for name in "abcd"] == [2**53, 2.0**60, -0.5, math.inf]
    assert [type(fields[name]) for name in "abcd"] == [int, float, float, float]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (CreateVideoRequest(prompt="x", settings={"prompt": "y"}), "prompt"),
        (CreateVideoRequest(prompt="x", settings={"input_reference": {}}, files={"input_reference": b""}), "input_reference"),
        (CreateVideoRequest(prompt="x", files={"prompt": b"y"}), "prompt"),
        (CreateVideoRequest(prompt="x", settings={"list": [{}] * (MAX_VALUES + 1)}), "settings"),
        (CreateVideoRequest(prompt="x", settings={"list": [[1] * 1000, [[2] * 1000]]}), "settings"),
        (CreateVideoRequest(prompt="x", files={str(number): b"" for number in range(MAX_VALUES + 1)}), "files"),
        (CreateVideoRequest(prompt="x", files={"input_reference": bytes(MAX_BYTES)}), None),
        (CreateVideoRequest(prompt="x", num_frames=30), "num_frames"),
        (CreateVideoRequest(prompt="x", seconds=math.nan), "seconds"),
        (CreateVideoRequest(prompt="x", settings={"no_such_field": 1}), "no_such_field"),
        (CreateVideoRequest(prompt="x", files={"no_such_file": b""}), "no_such_file"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(client: GrpcClient, request_: CreateVideoRequest, param: str | None) -> None:
    with pytest.raises(AiprodClientError) as told:
        client.create(request_)
    assert (told.value.status, told.value.code, told.value.param) == (400, "invalid_request", param)


def test_the_same_key_and_request_are_the_same_video(client: GrpcClient, service: StandInService) -> None:
    settings = VideoSettings(more={"loras": [], "next_prompts": [], "double_frame_rate": False})
    first = client.create(ask_for("a red ball", settings), idempotency_key="key")
    assert client.create(ask_for("a red ball", settings), idempotency_key="key").id == first.id and len(service.videos) == 1
    with pytest.raises(AiprodClientError) as told:
        client.create(BALL, idempotency_key="key")
    assert told.value.code == "idempotency_mismatch"


def test_a_watched_video_is_told_until_it_is_finished(client: GrpcClient) -> None:
    first, started, preview, last = client.watch(client.create(BALL).id)
    assert [event.WhichOneof("event") for event in (first, started, preview, last)] == ["video", "video", "preview", "video"]
    assert (first.video.status, first.video.progress, first.video.queue_position) == (Video.QUEUED, 0, 3)
    assert (started.video.status, started.video.progress) == (Video.IN_PROGRESS, 50) and not started.video.HasField("queue_position")
    assert {name: getattr(started.video.current, name) for name in STEP} == STEP
    assert (preview.preview.data, preview.preview.media_type) == (PREVIEW, "image/webp")
    assert last.video.status == Video.COMPLETED and last.video.completed_at == 1790000009 and not last.video.HasField("current")
    assert {name: getattr(last.video.stages[0], name) for name in RECEIPT} == RECEIPT


def test_generating_tells_what_happens_and_sends_the_file(client: GrpcClient) -> None:
    events = list(client.generate(BALL))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["video", "video", "preview", "video", "chunk", "chunk", "chunk"]
    assert b"".join(event.chunk.data for event in events[4:]) == FILE


def test_a_file_comes_in_chunks_that_say_where_they_belong(client: GrpcClient) -> None:
    video_id = finished(client)
    chunks = list(client.chunks(DownloadVideoRequest(id=video_id)))
    assert [(chunk.offset, len(chunk.data)) for chunk in chunks] == [(0, 262144), (262144, 262144), (524288, 115712)]
    assert {(chunk.size, chunk.media_type, chunk.etag) for chunk in chunks} == {(len(FILE), "video/mp4", "tag")}
    assert client.download(video_id) == FILE and client.download(video_id, variant="thumbnail") == b"a picture"


@pytest.mark.parametrize(
    ("offset", "length", "start", "end"),
    [(1, None, 1, 640000), (262143, 3, 262143, 262146), (639999, 9, 639999, 640000), (640000, None, 640000, 640000), (5, 0, 5, 5)],
)
def test_a_part_of_a_file_is_that_part(client: GrpcClient, offset: int, length: int | None, start: int, end: int) -> None:
    chunks = list(client.chunks(DownloadVideoRequest(id=finished(client), offset=offset, length=length)))
    assert b"".join(chunk.data for chunk in chunks) == FILE[start:end]
    assert chunks[0].offset == start and chunks[0].size == len(FILE)


@pytest.mark.parametrize(("offset", "length", "field"), [(-1, None, "offset"), (640001, None, "offset"), (0, -1, "length")])
def test_a_part_that_no_file_has_is_refused(client: GrpcClient, offset: int, length: int | None, field: str) -> None:
    with pytest.raises(AiprodClientError) as told:
        list(client.chunks(DownloadVideoRequest(id=finished(client), offset=offset, length=length)))
    assert told.value.param == field and told.value.is_bad_input


def test_an_empty_file_is_one_empty_chunk(client: GrpcClient, service: StandInService) -> None:
    service.file = b""
    (chunk,) = client.chunks(DownloadVideoRequest(id=finished(client)))
    assert (chunk.data, chunk.size, chunk.media_type) == (b"", 0, "video/mp4")


def test_all_videos_are_listed_page_by_page(client: GrpcClient) -> None:
    made = [client.create(BALL).id for _ in range(5)]
    assert [video.id for video in client.videos(page=2)] == made[::-1]
    assert [video.id for video in client.videos(order="asc", page=2)] == made


def test_there_may_be_none_to_list(client: GrpcClient) -> None:
    assert list(client.videos()) == []


def test_a_cancelled_video_is_cancelled_and_a_deleted_one_is_gone(client: GrpcClient, service: StandInService) -> None:
    video = client.create(BALL)
    assert client.cancel(video.id).status == Video.CANCELLED and client.get(video.id).status == Video.CANCELLED
    client.delete(video.id)
    assert service.videos == {}


def test_a_video_is_remixed_edited_and_extended(client: GrpcClient, service: StandInService) -> None:
    source = client.create(ask_for("a red ball", VideoSettings(seed=7)))
    remix = client.remix(source.id, "a blue ball")
    assert (remix.prompt, remix.seed, remix.remixed_from_video_id) == ("a blue ball", 7, source.id)
    assert client.edit(EditVideoRequest(prompt="it rains", video_id=source.id)).prompt == "it rains"
    assert client.edit(EditVideoRequest(prompt="it snows", files={"video": b"an mp4"})).prompt == "it snows"
    extended = client.extend(ExtendVideoRequest(prompt="on", video_id=source.id, seconds=1, settings={"seed": 9}))
    assert extended.seed == 9 and service.bodies[-1].fields == {"prompt": "on", "seconds": 1.0, "seed": 9}


def test_a_plan_is_http_s_plan_with_its_seed_to_the_last_digit(client: GrpcClient, service: StandInService) -> None:
    answer = client.plan(ask_for("a red ball", VideoSettings(seed=2**63 - 1)))
    asked = service.wire.read(service.bodies[0])
    assert answer.seed == 2**63 - 1 and service.videos == {}
    shown = describe_plan(asked)
    told = MessageToDict(answer.plan)
    assert [step["name"] for step in told["steps"]] == [step["name"] for step in shown["steps"]]
    assert told["totals"] == shown["totals"]


def test_models_are_listed_with_all_that_http_tells_of_them(client: GrpcClient, service: StandInService) -> None:
    (model,) = client.models()
    (shown,) = service.models["data"]
    assert (model.id, model.title, model.licence, model.default_pipeline) == tuple(
        shown[name] for name in ("id", "title", "licence", "default_pipeline")
    )
    assert MessageToDict(model.details).keys() == shown.keys()


def test_health_is_told(client: GrpcClient) -> None:
    answer = client.health()
    assert answer.status == "ready" and dict(answer.applications) == {"api": "RUNNING"}


def finished(client: GrpcClient) -> str:
    video_id = client.create(BALL).id
    assert list(client.watch(video_id))[-1].video.status == Video.COMPLETED
    return video_id
