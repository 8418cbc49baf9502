"""finished videos -> memory and files, whole or not at all, over connections that break"""

import io
from pathlib import Path

import pytest

from aiprod_client import AiprodClientError
from tests.client.either import Connect
from tests.client.stand_in import VIDEO, Answer, Received, StandIn, problem, running_stand_in

CONTENT = "GET /v1/videos/video_1/content"


@pytest.fixture(autouse=True)
def finished(server: StandIn) -> None:
    server.videos["video_1"] = {"id": "video_1", "status": "completed"}


def ranges(server: StandIn) -> list[str | None]:
    return [received.headers.get("range") for received in server.received]


def test_a_video_comes_into_memory(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        content = client.download("video_1")
    assert (content.data, content.size, content.media_type) == (VIDEO, len(VIDEO), "video/mp4")
    assert server.received[0].query == {"variant": "video"}


def test_a_variant_is_asked_for_by_its_name(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        client.download("video_1", variant="thumbnail")
    assert server.received[0].query == {"variant": "thumbnail"}


@pytest.mark.parametrize("kind", [str, Path])
def test_a_video_comes_into_a_file(server: StandIn, connect: Connect, tmp_path: Path, kind: type[str] | type[Path]) -> None:
    path = tmp_path / "ball.mp4"
    path.write_bytes(b"what was there before")
    with connect(server.url) as client:
        content = client.download("video_1", kind(path))
    assert path.read_bytes() == VIDEO
    assert (content.data, content.size) == (b"", len(VIDEO))
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_is_written_where_an_open_file_stands(server: StandIn, connect: Connect) -> None:
    server.cuts = [1000]
    file = io.BytesIO()
    file.write(b"before")
    with connect(server.url) as client:
        content = client.download("video_1", file)
    assert file.getvalue() == b"before" + VIDEO
    assert content.data == b""


def test_a_download_that_breaks_goes_on_where_it_was(server: StandIn, connect: Connect, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 5000, 70_000]
    with connect(server.url) as client:
        client.download("video_1", tmp_path / "ball.mp4")
    assert (tmp_path / "ball.mp4").read_bytes() == VIDEO
    assert ranges(server) == [None, "bytes=1000-", "bytes=1000-", "bytes=6000-", "bytes=76000-"]
    assert {received.headers["if-range"] for received in server.received[1:]} == {server.etag}
    assert {received.headers["accept-encoding"] for received in server.received} == {"identity"}


def test_a_video_that_changed_meanwhile_is_fetched_anew(server: StandIn, connect: Connect) -> None:
    other = VIDEO[::-1]

    def change(received: Received) -> Answer:
        server.answers.pop(CONTENT)
        server.content, server.etag = other, '"the-second"'
        return Answer(VIDEO, headers={"etag": '"the-first"'}, cut=1000)

    server.answers[CONTENT] = change
    with connect(server.url) as client:
        assert client.download("video_1").data == other
    assert ranges(server) == [None, "bytes=1000-"]


@pytest.mark.parametrize("headers", [{}, {"etag": 'W/"alike"'}], ids=["none", "weak"])
def test_without_a_strong_etag_nothing_is_pieced_together(server: StandIn, connect: Connect, headers: dict[str, str]) -> None:
    server.answers[CONTENT] = [Answer(VIDEO, headers=headers, cut=1000), Answer(VIDEO, headers=headers)]
    with connect(server.url) as client:
        assert client.download("video_1").data == VIDEO
    assert ranges(server) == [None, None]


def test_a_server_that_answers_another_range_is_not_believed(server: StandIn, connect: Connect) -> None:
    headers = {"etag": '"it"'}
    wrong = Answer(VIDEO, 206, {**headers, "content-range": f"bytes 0-{len(VIDEO) - 1}/{len(VIDEO)}"})
    server.answers[CONTENT] = [Answer(VIDEO, headers=headers, cut=1000), wrong]
    with connect(server.url) as client:
        assert client.download("video_1").data == VIDEO


def test_as_long_as_it_gets_on_a_download_is_not_given_up(server: StandIn, connect: Connect) -> None:
    server.cuts = [10_000] * 12
    with connect(server.url) as client:
        assert client.download("video_1").data == VIDEO
    assert len(server.received) == 13


def test_a_download_that_does_not_get_on_leaves_what_was_there(server: StandIn, connect: Connect, tmp_path: Path) -> None:
    server.cuts = [1000] + [0] * 10
    path = tmp_path / "ball.mp4"
    path.write_bytes(b"what was there before")
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="cannot be reached"):
        client.download("video_1", path)
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]
    assert len(server.received) == 5


def test_what_the_server_refuses_makes_no_file(server: StandIn, connect: Connect, tmp_path: Path) -> None:
    server.answers[CONTENT] = problem(409, "video_1 is not finished", code="conflict")
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="video_1 is not finished"):
        client.download("video_1", tmp_path / "ball.mp4")
    assert list(tmp_path.iterdir()) == []
    assert server.calls == [CONTENT]


def test_a_server_that_is_busy_is_asked_again(server: StandIn, connect: Connect) -> None:
    server.answers[CONTENT] = [problem(503, "not now", code="unavailable"), Answer(VIDEO)]
    with connect(server.url) as client:
        assert client.download("video_1").data == VIDEO


def test_a_folder_that_is_missing_is_said(server: StandIn, connect: Connect, tmp_path: Path) -> None:
    with connect(server.url) as client, pytest.raises(FileNotFoundError):
        client.download("video_1", tmp_path / "missing" / "ball.mp4")
    assert server.received == []


def test_a_bucket_that_the_server_points_to_is_read_without_the_key(server: StandIn, connect: Connect) -> None:
    with running_stand_in() as bucket:
        bucket.videos, bucket.cuts = server.videos, [1000]
        server.answers[CONTENT] = Answer(status=307, headers={"location": f"{bucket.url}/v1/videos/video_1/content?signed=yes"})
        with connect(server.url, api_key="ap_secret") as client:
            assert client.download("video_1").data == VIDEO
        assert ranges(bucket) == [None, "bytes=1000-"]
        assert not any("authorization" in received.headers for received in bucket.received)
    assert [received.headers["authorization"] for received in server.received] == ["Bearer ap_secret"] * 2
