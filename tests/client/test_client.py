"""the clients, sync and async, against a stand-in that speaks the contract"""

import base64
import inspect
import math
import socket
from uuid import UUID

import pytest

from aiprod_client import AiprodClientError, AsyncClient, Client, JobProgress, StageTime, VideoJob, VideoSettings
from aiprod_client.calls import Calls
from tests.client.either import Connect
from tests.client.stand_in import VIDEO, Answer, StandIn, json_answer, problem

CREATE = "POST /v1/videos"


def test_a_video_comes_with_how_it_was_made(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        video = client.generate("a red ball")
    assert (video.data, video.seed, video.pipeline, video.frames_sha256) == (VIDEO, 7, "ti2vid_two_stages", "0" * 64)
    assert video.timings == (StageTime("prompt", "text_encoder", 0.0123), StageTime("video", "vae_decoder", 2.5))
    assert (video.media_type, video.id) == ("video/mp4", next(iter(server.videos)))
    assert video.seconds > 0


def test_a_video_is_asked_for_and_not_waited_for(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball", webhook_url="https://me.example/done", priority=5)
    assert (job.status, job.prompt, job.seconds, job.queue_position, job.is_final) == ("queued", "a red ball", 2.0625, 2, False)
    ((body),) = server.bodies(CREATE)
    assert body == {"prompt": "a red ball", "webhook_url": "https://me.example/done", "priority": 5}


def test_only_what_is_set_is_sent(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        client.create("a red ball")
        client.create("a red ball", VideoSettings(size="64x64", num_frames=5, seed=0))
    bare, full = server.bodies(CREATE)
    assert bare == {"prompt": "a red ball"}
    assert full == {"prompt": "a red ball", "size": "64x64", "num_frames": 5, "seed": 0}


def test_a_picture_travels_as_a_data_url(server: StandIn, connect: Connect, png: bytes) -> None:
    with connect(server.url) as client:
        client.create("a red ball", VideoSettings(image=png, image_strength=0.5))
    (body,) = server.bodies(CREATE)
    kind, _, data = body["input_reference"]["image_url"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png
    assert body["image_strength"] == 0.5


def test_every_creation_has_a_key_of_its_own(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball")
        client.create("a red ball")
        client.remix(job, "a blue ball")
        client.edit("a blue ball", job)
        client.edit("a blue ball", VIDEO)
        client.extend(job, "and on", 2)
    keys = [received.headers["idempotency-key"] for received in server.received]
    assert len(set(map(UUID, keys))) == 6


def test_the_same_key_is_the_same_video(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        first, second = (client.create("a red ball", idempotency_key="mine") for _ in range(2))
    assert first == second
    assert [received.headers["idempotency-key"] for received in server.received] == ["mine", "mine"]


def test_videos_are_made_of_videos(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball")
        assert client.remix(job, "a blue ball").remixed_from_video_id == job.id
        client.edit("a blue ball", job.id, VideoSettings(seed=3))
        client.extend(job, "and on", 2.5, priority=-1, webhook_url="https://me.example/done")
    _, *made = [(received.call, received.body) for received in server.received]
    more = {"priority": -1, "webhook_url": "https://me.example/done"}
    assert made == [
        (f"POST /v1/videos/{job.id}/remix", {"prompt": "a blue ball"}),
        ("POST /v1/videos/edits", {"prompt": "a blue ball", "seed": 3, "video": {"id": job.id}}),
        ("POST /v1/videos/extensions", {"prompt": "and on", "seconds": "2.5", "video": {"id": job.id}, **more}),
    ]


def test_a_video_to_edit_travels_as_a_file(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        client.edit("a blue ball", VIDEO, VideoSettings(seed=3, loras={"canny": 0.5}))
    (received,) = server.received
    assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert VIDEO in received.body
    for name, value in {"prompt": "a blue ball", "seed": "3", "loras": '[{"name": "canny", "scale": 0.5}]'}.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in received.body


def test_a_job_is_what_the_server_says_of_it(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball")
        states = [client.retrieve(job.id) for _ in range(4)]
    assert [state.status for state in states] == ["queued", "in_progress", "in_progress", "completed"]
    assert states[2].current == JobProgress("video", "vae_decoder", done=1, total=2)
    assert [(receipt.stage, receipt.cache_hit) for receipt in states[3].stages] == [("text_encoder", False), ("vae_decoder", True)]
    assert states[3].is_final and states[3].completed_at == 1_790_000_009
    assert states[3].record["a_field_of_tomorrow"] == {"is": "here"}
    assert len({*states, *states}) == 4


def test_a_job_of_an_older_server_lacks_only_what_that_does_not_say(server: StandIn, connect: Connect) -> None:
    server.answers["GET /v1/videos/video_1"] = json_answer({"id": "video_1", "status": "queued"})
    with connect(server.url) as client:
        job = client.retrieve("video_1")
    assert (job.id, job.stages, job.seed, job.priority) == ("video_1", (), None, 0)


def test_videos_are_listed_by_pages(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        ids = [client.create(f"number {number}").id for number in range(5)]
        page = client.list(limit=2)
        assert [job.id for job in page.data] == [ids[4], ids[3]]
        assert (page.first_id, page.last_id, page.has_more) == (ids[4], ids[3], True)
        rest = client.list(limit=4, after=ids[0], order="asc")
        assert ([job.id for job in rest.data], rest.has_more) == (ids[1:], False)


@pytest.mark.parametrize("limit", [2, 5, 100])
def test_iterating_goes_through_all_pages(server: StandIn, connect: Connect, limit: int) -> None:
    with connect(server.url) as client:
        ids = [client.create(f"number {number}").id for number in range(5)]
        assert [job.id for job in client.iterate(limit=limit, order="asc")] == ids
    assert server.calls.count("GET /v1/videos") == -(-5 // limit)


def test_where_there_is_nothing_iterating_ends_at_once(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        assert list(client.iterate()) == []


def test_a_video_is_cancelled_and_deleted(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball")
        assert client.cancel(job).status == "cancelled"
        client.delete(job.id)
        with pytest.raises(AiprodClientError, match=f"there is no video {job.id}") as raised:
            client.retrieve(job)
    assert (raised.value.code, raised.value.status, raised.value.is_bad_input) == ("not_found", 404, True)


@pytest.mark.parametrize("name", ["", "..", "../models", "video_1/cancel", "video_1?x", "v" * 129])
def test_what_is_no_id_asks_for_nothing_else(server: StandIn, connect: Connect, name: str) -> None:
    with connect(server.url) as client:
        for ask in (client.retrieve, client.delete, client.cancel, client.wait, client.download):
            with pytest.raises(AiprodClientError, match="is no video's id") as raised:
                ask(name)
            assert raised.value.is_bad_input
    assert server.received == []


def test_plans_and_models_are_data(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        assert client.plan("a red ball", VideoSettings(num_frames=5))["output"] == "video"
        assert [model["id"] for model in client.models()] == ["miniature"]
    assert server.bodies("POST /v1/plans") == [{"prompt": "a red ball", "num_frames": 5}]


def test_what_the_server_refuses_is_raised_in_its_words(server: StandIn, connect: Connect) -> None:
    headers = {"x-request-id": "the-request"}
    server.answers[CREATE] = problem(400, "num_frames must be 29", code="invalid_request", param="num_frames", headers=headers)
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="num_frames must be 29") as raised:
        client.generate("a red ball")
    error = raised.value
    assert (error.message, error.param, error.code, error.status) == ("num_frames must be 29", "num_frames", "invalid_request", 400)
    assert error.request_id == "the-request"
    assert server.calls == [CREATE]


@pytest.mark.parametrize(("status", "bad_input"), [(400, True), (404, True), (413, True), (429, False), (499, False), (503, False)])
def test_asking_for_something_else_helps_only_where_the_request_was_at_fault(
    server: StandIn, connect: Connect, status: int, bad_input: bool
) -> None:
    server.answers[CREATE] = problem(status, "no", code="some_code")
    with connect(server.url) as client, pytest.raises(AiprodClientError) as raised:
        client.generate("a red ball")
    assert raised.value.is_bad_input is bad_input


def test_an_error_that_is_no_problem_document_still_says_something(server: StandIn, connect: Connect) -> None:
    server.answers[CREATE] = Answer(b"<html>Bad gateway</html>", 502)
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="502 Bad Gateway"):
        client.generate("a red ball")


def test_another_server_on_the_port_is_told_from_ours(server: StandIn, connect: Connect) -> None:
    routes = (*server.answers, CREATE, "GET /v1/videos", "GET /v1/videos/video_1")
    server.answers = {route: Answer(b"hello") for route in routes}
    with connect(server.url) as client:
        assert not client.ready()
        asked = (
            lambda: client.generate("a red ball"),
            lambda: client.plan("a red ball"),
            client.models,
            client.list,
            lambda: client.retrieve("video_1"),
        )
        for ask in asked:
            with pytest.raises(AiprodClientError, match=f"{server.url} is no AIPROD server"):
                ask()


@pytest.mark.parametrize("record", [{"id": "video_1"}, {"id": 3, "status": "queued"}, {"id": "video_1", "status": "queued", "stages": 4}])
def test_a_video_that_is_none_is_an_error(server: StandIn, connect: Connect, record: dict[str, object]) -> None:
    server.answers["GET /v1/videos/video_1"] = json_answer(record)
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="the server's video is none") as raised:
        client.retrieve("video_1")
    assert raised.value.code == "not_aiprod"


def test_a_server_is_ready_when_all_its_applications_run(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        assert client.ready()
        starting = {"status": "starting", "applications": {"miniature": "DEPLOYING", "api": "RUNNING"}}
        server.answers["GET /readyz"] = json_answer(starting, status=503)
        assert not client.ready()
        assert client.applications() == {"miniature": "DEPLOYING", "api": "RUNNING"}


def test_where_nobody_listens_nobody_is_ready(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with connect(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
            assert not client.ready()
            with pytest.raises(AiprodClientError, match="cannot be reached") as raised:
                client.generate("a red ball")
    assert (raised.value.code, raised.value.status) == ("unreachable", None)


def test_an_answer_that_does_not_come_in_time_is_an_error(connect: Connect) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1) as client,
            pytest.raises(AiprodClientError, match="did not answer in time"),
        ):
            client.generate("a red ball")


def test_an_answer_may_take_for_ever_if_it_is_told_so(server: StandIn, connect: Connect) -> None:
    with connect(server.url, timeout=math.inf) as client:
        assert client.generate("a red ball").data == VIDEO


def test_this_machine_is_reached_without_the_environments_proxy(server: StandIn, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with connect(server.url) as client:
        assert client.ready()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_url_is_refused(kind: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(AiprodClientError, match="is not a URL"):
        kind("http://[::1")
    for address in ("localhost:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", ""):
        with pytest.raises(AiprodClientError, match="is not a server's URL, such as"):
            kind(address)


def test_the_key_is_the_argument_s_or_the_environment_s(server: StandIn, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: str) -> str | None:
        with connect(server.url, **options) as client:
            client.models()
        return server.received[-1].headers.get("authorization")

    assert sent() is None
    monkeypatch.setenv("AIPROD_API_KEY", "ap_of_the_environment\n")
    assert sent() == "Bearer ap_of_the_environment"
    assert sent(api_key="ap_given") == "Bearer ap_given"
    assert sent(api_key="") is None


def test_what_cannot_be_a_key_is_refused_without_showing_it() -> None:
    for key in ("ap one", "ap\r\nx: y", "schlüssel"):
        with pytest.raises(AiprodClientError) as raised:
            Client(api_key=key)
        assert key not in raised.value.message


def test_the_environment_names_the_server(server: StandIn, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPROD_SERVER", server.url)
    with Client() as client:
        assert client.base_url == server.url


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_clients_have_every_call_with_its_parameters(kind: type[Client] | type[AsyncClient]) -> None:
    for name, call in inspect.getmembers(Calls, inspect.isfunction):
        if not name.startswith("_"):
            offered = getattr(kind, name)
            assert list(inspect.signature(offered).parameters) == list(inspect.signature(call).parameters)
            assert offered.__doc__ == call.__doc__
    assert inspect.signature(kind.create).return_annotation is VideoJob
