"""the client, against a stand-in that speaks the contract"""

import base64
import socket

import pytest

from aiprod_client import AiprodClientError, Client, StageTime, VideoSettings
from tests.client.stand_in import VIDEO, Answer, StandIn, json_answer, problem


def test_a_video_comes_with_how_it_was_made(server: StandIn) -> None:
    with Client(server.url) as client:
        video = client.generate("a red ball")
    assert (video.data, video.seed, video.pipeline, video.frames_sha256) == (VIDEO, 7, "ti2vid_two_stages", "0" * 64)
    assert video.timings == (StageTime("prompt", "text_encoder", 0.0123), StageTime("video", "vae_decoder", 2.5))
    assert video.seconds > 0


def test_only_what_is_set_is_sent(server: StandIn) -> None:
    with Client(server.url) as client:
        client.generate("a red ball")
        client.generate("a red ball", VideoSettings(size="64x64", num_frames=5, seed=0))
    bare, full = (body for _, body in server.received)
    assert bare == {"prompt": "a red ball"}
    assert full == {"prompt": "a red ball", "size": "64x64", "num_frames": 5, "seed": 0}


def test_a_picture_travels_as_a_data_url(server: StandIn, png: bytes) -> None:
    with Client(server.url) as client:
        client.generate("a red ball", VideoSettings(image=png, image_strength=0.5))
    ((_, body),) = server.received
    kind, _, data = body["input_reference"]["image_url"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png
    assert body["image_strength"] == 0.5


def test_plans_and_models_are_data(server: StandIn) -> None:
    with Client(server.url) as client:
        assert client.plan("a red ball", VideoSettings(num_frames=5))["output"] == "video"
        assert [model["id"] for model in client.models()] == ["miniature"]
    assert server.received[0] == ("POST /v1/plans", {"prompt": "a red ball", "num_frames": 5})


def test_what_the_server_refuses_is_raised_in_its_words(server: StandIn) -> None:
    server.answers["POST /v1/videos/sync"] = problem(400, "num_frames must be 29", code="invalid_request", param="num_frames")
    with Client(server.url) as client, pytest.raises(AiprodClientError, match="num_frames must be 29") as raised:
        client.generate("a red ball")
    error = raised.value
    assert (error.message, error.param, error.code, error.status) == ("num_frames must be 29", "num_frames", "invalid_request", 400)


@pytest.mark.parametrize(("status", "bad_input"), [(400, True), (404, True), (413, True), (429, False), (499, False), (503, False)])
def test_asking_for_something_else_helps_only_where_the_request_was_at_fault(server: StandIn, status: int, bad_input: bool) -> None:
    server.answers["POST /v1/videos/sync"] = problem(status, "no", code="some_code")
    with Client(server.url) as client, pytest.raises(AiprodClientError) as raised:
        client.generate("a red ball")
    assert raised.value.is_bad_input is bad_input


def test_an_error_that_is_no_problem_document_still_says_something(server: StandIn) -> None:
    server.answers["POST /v1/videos/sync"] = Answer(b"<html>Bad gateway</html>", 502)
    with Client(server.url) as client, pytest.raises(AiprodClientError, match="502 Bad Gateway"):
        client.generate("a red ball")


def test_another_server_on_the_port_is_told_from_ours(server: StandIn) -> None:
    server.answers = {route: Answer(b"hello") for route in server.answers}
    with Client(server.url) as client:
        assert not client.ready()
        for ask in (lambda: client.generate("a red ball"), lambda: client.plan("a red ball"), client.models):
            with pytest.raises(AiprodClientError, match="is no AIPROD server"):
                ask()


def test_a_server_is_ready_when_all_its_applications_run(server: StandIn) -> None:
    with Client(server.url) as client:
        assert client.ready()
        starting = {"status": "starting", "applications": {"miniature": "DEPLOYING", "api": "RUNNING"}}
        server.answers["GET /readyz"] = json_answer(starting, status=503)
        assert not client.ready()
        assert client.applications() == {"miniature": "DEPLOYING", "api": "RUNNING"}


def test_where_nobody_listens_nobody_is_ready() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
            assert not client.ready()
            with pytest.raises(AiprodClientError, match="cannot be reached") as raised:
                client.generate("a red ball")
    assert (raised.value.code, raised.value.status) == ("unreachable", None)


def test_an_answer_that_does_not_come_in_time_is_an_error() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2) as client,
            pytest.raises(AiprodClientError, match="did not answer in time"),
        ):
            client.generate("a red ball")


def test_this_machine_is_reached_without_the_environments_proxy(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Client(server.url) as client:
        assert client.ready()


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(AiprodClientError, match="is not a URL"):
        Client("http://[::1")
    for address in ("localhost:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", ""):
        with pytest.raises(AiprodClientError, match="is not a server's URL, such as"):
            Client(address)
