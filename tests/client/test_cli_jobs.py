"""`aiprod jobs …`, against a stand-in for the server"""

import json
from pathlib import Path

import pytest

from tests.client.stand_in import VIDEO, StandIn, problem
from tests.client.test_cli import refused, run


@pytest.fixture
def ids(server: StandIn) -> list[str]:
    """Two finished videos."""
    finished = {"status": "completed", "progress": 100, "prompt": "a [red] ball", "created_at": 1_790_000_000, "size": "128x128"}
    server.videos["video_1"] = {"id": "video_1", **finished}
    server.videos["video_2"] = {"id": "video_2", "status": "in_progress", "progress": 40, "prompt": "a cube", "current": None}
    server._changes["video_2"] = iter([])
    return list(server.videos)


def test_jobs_are_listed_newest_first(server: StandIn, ids: list[str]) -> None:
    result = run("jobs", "list", server=server.url)
    assert result.exit_code == 0, result.output
    _, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ids[::-1]
    assert "in_progress 40 %" in rows[0]
    assert "a [red] ball" in rows[1]


def test_jobs_are_listed_page_by_page(server: StandIn, ids: list[str]) -> None:
    result = run("jobs", "list", "--limit", "1", "--order", "asc", "--json", server=server.url)
    listed = json.loads(result.stdout)
    assert ([job["id"] for job in listed["data"]], listed["has_more"]) == (["video_1"], True)
    assert "--after video_1" in run("jobs", "list", "--limit", "1", "--order", "asc", server=server.url).stderr
    rest = run("jobs", "list", "--after", "video_1", "--order", "asc", "--json", server=server.url)
    assert [job["id"] for job in json.loads(rest.stdout)["data"]] == ["video_2"]


def test_a_job_is_shown(server: StandIn, ids: list[str]) -> None:
    lines = [line.strip().split(maxsplit=1) for line in run("jobs", "show", "video_1", server=server.url).stdout.splitlines()]
    assert {"status": "completed", "prompt": "a [red] ball", "size": "128x128"}.items() <= dict(lines).items()
    assert json.loads(run("jobs", "show", "video_1", "--json", server=server.url).stdout) == server.videos["video_1"]


def test_a_job_that_is_not_there_is_bad_input(server: StandIn) -> None:
    for command in ("show", "watch", "cancel", "delete"):
        assert refused(run("jobs", command, "video_9", server=server.url), code=2) == "there is no video video_9"


def test_a_job_is_watched_to_its_end_and_fetched(server: StandIn, tmp_path: Path) -> None:
    name = run("jobs", "remix", _finished(server), "a blue ball", server=server.url).stdout.strip()
    result = run("jobs", "watch", name, "-o", str(tmp_path / "ball.mp4"), "--json", server=server.url)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "completed"
    assert (tmp_path / "ball.mp4").read_bytes() == VIDEO
    assert ["video", "vae_decoder", "2.50"] in [line.split() for line in result.stderr.splitlines()]


@pytest.mark.parametrize(("status", "said"), [("failed", "the worker was lost"), ("cancelled", "video_1 was cancelled")])
def test_watching_a_job_that_comes_to_nothing_is_a_failure(server: StandIn, status: str, said: str) -> None:
    error = {"code": "worker_lost", "message": "the worker was lost"}
    server.videos["video_1"] = {"id": "video_1", "status": status, "error": error, "current": None}
    assert refused(run("jobs", "watch", "video_1", server=server.url), code=1) == said


def test_watching_has_an_end(server: StandIn) -> None:
    server.videos["video_1"] = {"id": "video_1", "status": "queued"}
    server.answers["GET /v1/videos/video_1/events"] = problem(404, "none", code="not_found")
    server._changes["video_1"] = iter([])
    assert refused(run("jobs", "watch", "video_1", "--timeout", "0.2", server=server.url), code=1) == "the video was not finished in 0.2 s"


def test_jobs_are_cancelled_and_deleted(server: StandIn, ids: list[str]) -> None:
    assert run("jobs", "cancel", "video_2", server=server.url).stderr == "video_2 is cancelled\n"
    result = run("jobs", "delete", *ids, server=server.url)
    assert result.stderr.splitlines() == ["video_1 is deleted", "video_2 is deleted"]
    assert server.videos == {}


def test_a_video_and_its_other_files_are_fetched(server: StandIn, ids: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ball.webp"
    result = run("jobs", "download", "video_1", "-o", str(path), "--variant", "thumbnail", server=server.url)
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == VIDEO
    assert server.received[-1].query == {"variant": "thumbnail"}
    assert run("jobs", "download", "video_1", "-o", str(path), "--variant", "poster", server=server.url).exit_code == 2


def test_new_videos_are_made_of_old_ones(server: StandIn, ids: list[str]) -> None:
    remixed = run("jobs", "remix", "video_1", "a blue ball", server=server.url)
    assert remixed.stdout.strip() in server.videos
    assert f"aiprod jobs watch {remixed.stdout.strip()}" in remixed.stderr
    extended = run("jobs", "extend", "video_1", "and on", "--seconds", "2", "--json", server=server.url)
    assert json.loads(extended.stdout)["status"] == "queued"
    assert server.bodies("POST /v1/videos/extensions") == [{"prompt": "and on", "seconds": "2.0", "video": {"id": "video_1"}}]


def test_a_server_that_is_not_there_is_a_failure() -> None:
    assert "http://127.0.0.1:9 cannot be reached" in refused(run("jobs", "show", "video_1"), code=1)


def _finished(server: StandIn) -> str:
    server.videos["video_0"] = {"id": "video_0", "status": "completed"}
    return "video_0"
