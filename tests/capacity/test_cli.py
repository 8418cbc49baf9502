"""`aiprod capacity …`, from arguments to tables, files and exit codes"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.capacity.reading import read_yaml
from deployments.capacity.times import Times
from deployments.settings import check_config
from tests.capacity.settings import DRAFT, gpu_pools, times, traffic
from tests.client.conftest import server as server
from tests.client.stand_in import StandIn
from tests.client.test_cli import refused, run
from tests.graph import ROOT

EXAMPLES = ROOT / "examples/capacity"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Options that name a traffic, times and pools."""
    for name, content in {"traffic": traffic(seconds=120), "times": times(), "pools": gpu_pools()}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content.model_dump(mode="json")))
    return {f"--{name}": str(tmp_path / f"{name}.yaml") for name in ("traffic", "times", "pools")}


def options(files: dict[str, str], **more: str) -> list[str]:
    named = {**files, **{f"--{name}": value for name, value in more.items()}}
    return ["capacity", *(word for pair in named.items() for word in pair)]


def test_a_plan_is_a_table_and_what_it_comes_to(files: dict[str, str]) -> None:
    result = run(*options(files, slo="p95=12s"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["family", "stage", "pool", "replicas", "busy", "wait", "a", "video"]
    assert [line.split()[1] for line in lines[1:6]] == ["text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder"]
    told = "\n".join(lines)
    for word in ("p95=12s holds", "for 1,000 videos", "breaks first: miniature.", "stage times: a test"):
        assert word in told


def test_a_plan_is_data_and_a_config(files: dict[str, str], tmp_path: Path) -> None:
    result = run(*options(files, slo="p95=12s", output=str(tmp_path / "serve_config.yaml")), "--json")
    report = json.loads(result.stdout)
    config = check_config(tmp_path / "serve_config.yaml")
    replicas = {each["name"]: each["num_replicas"] for each in config["applications"][0]["deployments"]}
    assert {stage["stage"]: replicas[stage["stage"]] for stage in report["stages"]} == {s["stage"]: s["replicas"] for s in report["stages"]}
    assert report["holds"] and report["breaks_first"]["factor"] > 1 and report["monolith"] is None


def test_a_promise_that_does_not_hold_is_an_exit_code() -> None:
    result = run("capacity", "--traffic", str(EXAMPLES / "miniature/traffic.yaml"), "--slo", "p99=6500ms")
    assert refused(result, code=1).startswith("p99=6.5s does not hold: p99 is ")
    assert "p99=6.5s does not hold" in result.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"slo": "fast"}, "slo: 'fast' is no promise; say p95=60s"),
        ({"slo": "p95=1s"}, "slo: p95 is 7.2 s, above 1 s where no video waits for another"),
        ({"traffic": "absent.yaml"}, "absent.yaml cannot be read"),
        ({"pools": "absent.yaml"}, "absent.yaml cannot be read"),
        ({"config": "absent.yaml"}, "absent.yaml cannot be read"),
        ({"output": "absent/config.yaml"}, "folder absent does not exist; make it first"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files: dict[str, str], change: dict[str, str], told: str) -> None:
    assert told in refused(run(*options(files, **change)), code=2)


def test_a_fault_in_a_file_names_file_and_field(files: dict[str, str]) -> None:
    path = Path(files["--pools"])
    pools = yaml.safe_load(path.read_text())
    pools["pools"][0]["price"] = pools["pools"][0].pop("price_per_hour")
    path.write_text(yaml.safe_dump(pools))
    message = refused(run(*options(files)), code=2)
    assert message.startswith(f"{path}: pools.0.price_per_hour is missing; say it") or "pools.0.price is not known here" in message


def test_a_traffic_must_be_named() -> None:
    assert "name a file with --traffic" in refused(run("capacity"), code=2)


@pytest.mark.parametrize("folder", ["ltx2", "miniature"])
def test_the_examples_can_be_planned(folder: str) -> None:
    config = {"ltx2": ROOT / "examples/ltx2/l4-h100.yaml", "miniature": ROOT / "serve_config.yaml"}[folder]
    names = {f"--{name}": str(EXAMPLES / folder / f"{name}.yaml") for name in ("traffic", "times", "pools")}
    result = run(*options(names, config=str(config), slo="p95=60s"), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["holds"] and report["breaks_first"]["factor"] > 1


def test_a_server_is_calibrated_from_its_videos(server: StandIn, tmp_path: Path) -> None:
    steps = {"prompt": "text_encoder", "draft": "denoiser", "doubled": "upsampler", "refined": "refiner", "video": "vae_decoder"}
    lines: list[dict[str, Any]] = [
        {"step": step, "stage": stage, "replica": "a", "queued_seconds": 0.01, "run_seconds": 0.5, "cache_hit": False, "attempt": 1}
        for step, stage in steps.items()
    ]
    cost = json.loads(run("plan", "a ball", "--json", "--model", "miniature/distilled", "--size", "64x64", "--frames", "5").stdout)
    shown = {**DRAFT, "prompt": "a ball", "fps": 16.0, "seed": 3, "cost": round(sum(step["cost"] for step in cost["steps"]), 3)}
    server.videos["video_1"] = {"id": "video_1", "status": "completed", "progress": 100, **shown, "stages": lines}
    server.videos["video_2"] = {"id": "video_2", "status": "failed", "progress": 3, **shown}
    result = run("capacity", "calibrate", "--output", str(tmp_path / "times.yaml"), server=server.url)
    assert result.exit_code == 0, result.output
    assert "from 1 videos, 1 passed over" in result.stderr
    found = read_yaml(tmp_path / "times.yaml", Times)
    assert found.source == f"2 videos of {server.url}" and set(found.stages["miniature"]) == set(steps.values())


def test_a_result_needs_its_traffic(tmp_path: Path) -> None:
    result = run("capacity", "calibrate", "--output", str(tmp_path / "times.yaml"), "--result", str(tmp_path / "result.json"))
    assert "--result and --traffic belong together" in refused(result, code=2)
