"""traffic files -> who asks; rows -> the result; promises -> what is broken of them"""

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.traffic import Traffic
from loadtests.__main__ import DEFAULT_TRAFFIC, PROMISED, main
from loadtests.gate import broken, read_promises
from loadtests.result import result_of
from loadtests.traffic import FACES, FOLDER, PERSONAS, askers, traffic_named

TRAFFIC = Traffic.model_validate(
    {
        "name": "test",
        "seconds": 60,
        "classes": [{"name": name, "request": {}, "arrival": {"kind": "poisson", "per_second": 1}} for name in ("drafts", "films")],
    }
)


def row(name: str, latency: float, status: str = "completed") -> dict[str, Any]:
    return {"class": name, "at": latency / 2, "latency": latency, "status": status}


ROWS = [
    *(row("drafts", second) for second in (1.0, 2.0, 3.0)),
    row("films", 40.0),
    row("films", 9.0, "failed"),
    row("drafts", 1, "cancelled"),
]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_traffic_here_is_one_and_the_same_whenever_it_is_played(path: Path) -> None:
    traffic = traffic_named(path.stem)
    once, again = (askers(traffic, faces=FACES["both"]) for _ in range(2))
    assert once == again and {each.persona for each in once} == {each.persona for each in traffic.classes}
    assert all(before.arrival.at <= after.arrival.at for before, after in pairwise(once))


def test_another_seed_asks_at_other_times() -> None:
    drawn = [[each.arrival.at for each in askers(TRAFFIC.model_copy(update={"seed": seed}), faces=("http",))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_two_minutes_have_all_personas_over_both_faces() -> None:
    traffic = traffic_named(DEFAULT_TRAFFIC)
    found = askers(traffic, faces=FACES["both"])
    assert traffic.seconds == 120
    assert {(each.persona, each.face) for each in found} == {(persona, face) for persona in PERSONAS for face in FACES["both"]}
    assert len(read_promises(PROMISED, classes=[each.name for each in traffic.classes])) == len(PROMISED)


def test_each_request_asks_for_a_video_of_its_own() -> None:
    seeds = [[each.arrival.body["seed"] for each in askers(TRAFFIC, faces=("http",), first_number=first)] for first in (0, 1000)]
    assert len({*seeds[0], *seeds[1]}) == len(seeds[0]) + len(seeds[1])


def test_the_result_tells_of_all_and_of_each_class() -> None:
    result = result_of(TRAFFIC, ROWS)
    assert [result[name] for name in ("arrivals", "completed", "failed", "cancelled")] == [6, 4, 1, 1]
    assert result["latency"]["p50"] == 2.5
    assert result["by_class"]["drafts"]["latency"] == pytest.approx({"p50": 2.0, "p95": 2.9, "p99": 2.98})
    assert result["throughput_per_minute"] == 4.0
    assert [each["at"] for each in result["rows"]] == sorted(each["at"] for each in ROWS)


def test_a_class_of_which_nothing_was_finished_has_no_latency() -> None:
    assert result_of(TRAFFIC, [row("films", 9.0, "failed")])["by_class"]["films"]["latency"] == {"p50": None, "p95": None, "p99": None}


@pytest.mark.parametrize(
    ("promised", "faults"),
    [
        (["p95=60s,errors=20%"], []),
        (["p95=20s"], ["p95 is 34.4 s, above 20 s"]),
        (["drafts:p95=5s", "films:p50=30s"], ["films: p50 is 40 s, above 30 s"]),
        (["errors=1%"], ["errors are 16.67%, above 1.00%"]),
        (["films:errors=50%", "drafts:errors=0%"], []),
        ([], []),
    ],
)
def test_a_promise_holds_or_is_told_of(promised: list[str], faults: list[str]) -> None:
    promises = read_promises(promised, classes=("drafts", "films"))
    assert broken(result_of(TRAFFIC, ROWS), promises, due=len(ROWS)) == faults


def test_where_nothing_is_finished_no_latency_holds() -> None:
    promises = read_promises(["p95=1h"], classes=())
    assert broken(result_of(TRAFFIC, [row("films", 9.0, "failed")]), promises, due=1) == ["p95 is inf s, above 3600 s"]


def test_a_run_that_was_interrupted_holds_nothing() -> None:
    assert broken(result_of(TRAFFIC, ROWS), [], due=9) == ["only 6 of 9 requests came to an end"]


def test_a_promise_for_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no class 'draft'; it has drafts, films"):
        read_promises(["draft:p95=1s"], classes=("drafts", "films"))


def test_a_traffic_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"no file stedy; name a YAML file, or burst, .*steady"):
        traffic_named("stedy")


def test_a_bad_traffic_file_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((FOLDER / "burst.yaml").read_text().replace("persona: burst", "persona: bursty"))
    with pytest.raises(InvalidRequestError, match=rf"{path}: classes\.0\.persona: .*'steady', 'burst'.*got 'bursty'"):
        traffic_named(str(path))


def test_the_options_are_shown_with_what_is_promised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and " ".join(PROMISED) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (["--host", "http://there:8000", "--out", "x", "--face", "both"], "--face is both, and of the server only HTTP is known"),
        (["--host", "http://there:8000"], "--out is missing"),
    ],
)
def test_a_server_that_is_there_is_not_taken_for_one_of_this_machine(
    said: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(said) == 2
    assert fault in capsys.readouterr().err


def test_locust_finds_what_was_named_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[Any]] = []

    def run(command: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "mine.yaml").write_text("name: mine")
    assert main(["--host", "http://there:8000", "--out", "runs", "--traffic", "mine.yaml"]) == 0
    (command,) = commands
    for option, value in {"--traffic": tmp_path / "mine.yaml", "--html": tmp_path / "runs/report.html", "--face": "http"}.items():
        assert command[command.index(option) + 1] == str(value)
    assert "--grpc" not in command
