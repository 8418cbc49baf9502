"""the command line, from arguments to files, messages and exit codes"""

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from aiprod_client.cli import app
from aiprod_components.families import make_family
from aiprod_components.pipelines import PIPELINES
from tests.client.stand_in import VIDEO, StandIn, json_answer, problem

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing answers there
TINY = ["--frames", "5", "--size", "64x64", "--steps", "2", "--seed", "7"]


def run(*arguments: str, server: str = NOBODY) -> Result:
    return CliRunner().invoke(app, arguments, env={"AIPROD_SERVER": server, "AIPROD_API_KEY": "", "COLUMNS": "200"})


def refused(result: Result, *, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    *said_before, line = result.stderr.splitlines()
    assert line.startswith("aiprod: ")
    assert not any("Traceback" in earlier for earlier in said_before)
    return line.removeprefix("aiprod: ")


def test_a_plan_is_a_table() -> None:
    result = run("plan", "a red ball")
    assert result.exit_code == 0
    title, header, *rows = result.stdout.splitlines()
    assert title.strip() == "miniature/ti2vid_two_stages"
    assert header.split() == ["step", "stage", "inputs", "network", "calls", "tokens", "bytes"]
    assert [row.split()[:2] for row in rows] == [
        ["prompt", "text_encoder"],
        ["draft", "denoiser"],
        ["doubled", "upsampler"],
        ["refined", "refiner"],
        ["video", "vae_decoder"],
    ]


def test_a_plan_is_data() -> None:
    result = run("plan", "a red ball", "--json", "--steps", "9", "--guidance-scale", "1", "--model", "miniature/ti2vid_one_stage")
    described = json.loads(result.stdout)
    assert described["pipeline"] == "ti2vid_one_stage"
    assert [step["work"]["network_calls"] for step in described["steps"]] == [1, 9, 1]


def test_a_plan_of_a_family_without_weights_needs_none() -> None:
    assert json.loads(run("plan", "a red ball", "--json", "--model", "aiprod").stdout)["family"] == "aiprod"


def test_a_picture_adds_its_steps(png: bytes, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png)
    described = json.loads(run("plan", "a red ball", "--json", "--image", str(tmp_path / "red.png")).stdout)
    assert [step["stage"] for step in described["steps"]].count("vae_encoder") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "30"], "num_frames must be 1 + a multiple of 4, got 30; nearest is 29"),
        (["--size", "big"], "size: must be WIDTHxHEIGHT in pixels, such as \"128x128\", got 'big'"),
        (["--size", "100x128"], "size: width must be a multiple of 32 for this pipeline, got 100; nearest is 96"),
        (["--steps", "1000"], "num_inference_steps must be 1 to 100 steps, got 1000"),
        (["--pipeline", "magic"], f"pipeline 'magic' is unknown; the pipelines are {', '.join(PIPELINES)}"),
        (["--model", "sora"], "model family 'sora' is unknown; the families are miniature, aiprod, ltx2"),
        (["--image", "no.png"], "image no.png cannot be read: No such file or directory"),
        (["--image", "pyproject.toml"], "input_reference is not a picture; send one of PNG, JPEG, WEBP"),
        (["--keyframe", "middle.png"], "keyframe must be FRAME=FILE, such as 16=middle.png, got 'middle.png'"),
        (["--keyframe", "9" * 5000 + "=a.png"], f"keyframe must be FRAME=FILE, such as 16=middle.png, got '{'9' * 5000}=a.png'"),
        (["--keyframe", "16=no.png"], "keyframe no.png cannot be read: No such file or directory"),
        (["--lora", "canny=much"], "lora must be NAME or NAME=SCALE, such as style=0.8, got 'canny=much'"),
        (["--lora", "canny", "--lora", "canny=0.5"], "--lora gives canny twice; give it once"),
        (["--set", "prompt=a cube"], "--set prompt is an argument of its own; see --help"),
        (["--lora", "noir"], "lora 'noir' is unknown to miniature; there is canny, distilled"),
        (["--set", "sampler"], "--set must be FIELD=VALUE, such as sampler=heun, got 'sampler'"),
        (
            ["--set", "sampler=leapfrog"],
            "sampler: must be one of euler, euler_ancestral, heun, dpmpp_2m, res_2s, gradient_estimation, got 'leapfrog'",
        ),
        (["--image-strength", "0.5"], "image_strength needs a picture; send input_reference too"),
    ],
)
def test_bad_input_is_one_line_that_names_the_way_out(arguments: list[str], message: str) -> None:
    assert refused(run("plan", "a red ball", *arguments), code=2) == message


def test_what_the_command_line_itself_forbids_is_bad_input_too() -> None:
    result = run("plan", "a red ball", "--frames", "many")
    assert result.exit_code == 2
    assert "Invalid value for '--frames'" in result.stderr


def test_doctor_says_what_is_there() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["versions"]["torch"]
    assert report["libx264"] is True
    assert report["device"]
    assert report["attention"]
    assert set(report["weights"]["miniature"]) == set(make_family("miniature").components)
    assert report["weights"]["aiprod"] == {}


def test_doctor_is_a_table() -> None:
    lines = [line.split() for line in run("doctor").stdout.splitlines()]
    assert ["libx264", "available"] in lines
    assert {"python", "torch", "ray", "device", "attention", "threads"} <= {line[0] for line in lines}


def test_without_a_server_the_video_is_made_here(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    result = run("generate", "a red ball", "-o", str(path), *TINY)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("running in this process\n")
    assert re.search(r"draft denoiser .* 2/2", result.stderr)
    assert "seed 7" in result.stderr
    assert result.stdout == ""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 5


@pytest.mark.parametrize("name", ["still.png", "still.webp", "still.mp4"])
def test_the_file_s_name_says_what_a_single_frame_becomes(name: str, tmp_path: Path) -> None:
    one = ["--frames", "1", "--size", "64x64", "--steps", "2", "--seed", "7", "--local"]
    result = run("generate", "a red ball", "-o", str(tmp_path / name), *one)
    assert result.exit_code == 0, result.output
    if name.endswith("mp4"):
        with av.open(tmp_path / name) as container:
            assert container.streams.video[0].frames == 1
    else:
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == (name.split(".")[1].upper(), (64, 64))


def test_a_still_of_many_frames_is_refused_before_anything_runs(tmp_path: Path) -> None:
    result = run("generate", "a red ball", "-o", str(tmp_path / "x.png"), "--local")
    assert "output_format png is for one frame, and num_frames is 33" in refused(result, code=2)


def test_the_same_seed_gives_the_same_frames(tmp_path: Path) -> None:
    results = [run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--local", "--json", *TINY) for _ in range(2)]
    first, second = (json.loads(result.stdout) for result in results)
    assert first["frames_sha256"] == second["frames_sha256"]
    assert first["server"] is None
    assert [time["stage"] for time in first["timings"]] == ["text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder"]


def test_a_server_that_answers_is_asked(server: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    result = run("generate", "a red ball", "-o", str(path), "--server", server.url, *TINY)
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == VIDEO
    assert result.stderr.startswith(f"asking {server.url}\n")
    assert ["video", "vae_decoder", "2.50"] in [line.split() for line in result.stderr.splitlines()]
    assert re.search(rf"{next(iter(server.videos))} completed .* 100/100", result.stderr)
    assert re.search(r"prompt text_encoder .* 1/1", result.stderr)
    assert re.search(r"video vae_decoder .* 2/2", result.stderr)
    asked = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2, "seed": 7, "output_format": "mp4"}
    assert server.bodies("POST /v1/videos") == [asked]


def test_the_environment_names_the_server(server: StandIn, tmp_path: Path) -> None:
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--json", server=server.url)
    facts = json.loads(result.stdout)
    assert (facts["server"], facts["id"], facts["seed"]) == (server.url, next(iter(server.videos)), 7)
    assert "data" not in facts


def test_what_the_server_refuses_is_bad_input(server: StandIn, tmp_path: Path) -> None:
    server.answers["POST /v1/videos"] = problem(400, "num_frames must be 29", code="invalid_request", param="num_frames")
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url)
    assert refused(result, code=2) == "num_frames must be 29"
    assert not (tmp_path / "out.mp4").exists()


def test_a_server_that_is_busy_is_a_failure(server: StandIn, tmp_path: Path) -> None:
    server.answers["POST /v1/videos"] = problem(429, "all stages are busy", code="queue_full", headers={"retry-after": "600"})
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url)
    assert refused(result, code=1) == "all stages are busy"


def test_a_server_that_is_named_must_be_ready(server: StandIn, tmp_path: Path) -> None:
    server.answers["GET /readyz"] = json_answer({"status": "starting", "applications": {"miniature": "DEPLOYING"}}, status=503)
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url)
    assert refused(result, code=1).startswith(f"no AIPROD server is ready at {server.url}")


def test_an_output_folder_that_is_missing_is_found_before_the_work(tmp_path: Path) -> None:
    result = run("generate", "a red ball", "-o", str(tmp_path / "missing" / "out.mp4"))
    assert refused(result, code=2) == f"folder {tmp_path / 'missing'} does not exist; make it first"


def test_an_output_that_is_a_folder_is_found_before_the_work(tmp_path: Path) -> None:
    assert refused(run("generate", "a red ball", "-o", str(tmp_path)), code=2) == f"{tmp_path} is a folder; name a file in it"


def test_an_output_of_another_format_is_found_before_the_work(tmp_path: Path) -> None:
    message = refused(run("generate", "a red ball", "-o", str(tmp_path / "ball.gif")), code=2)
    assert message == f"{tmp_path / 'ball.gif'} must end in .mp4, .png, .webp, .m4a, .wav, or say --output-format"


def test_a_server_is_asked_with_its_own_weights_only(tmp_path: Path) -> None:
    arguments = ("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", NOBODY)
    assert refused(run(*arguments, "--local"), code=2) == "--server excludes --local; leave one out"
    assert refused(run(*arguments, "--weights", str(tmp_path)), code=2) == "--server excludes --weights; leave one out"


def test_named_weights_are_not_asked_of_a_server(server: StandIn, tmp_path: Path) -> None:
    arguments = ["generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--weights", str(tmp_path)]
    result = run(*arguments, server=server.url)
    assert refused(result, code=1).startswith(f"{tmp_path / 'text_encoder.safetensors'} does not exist")


def test_what_is_no_number_is_the_server_s_to_refuse(server: StandIn, tmp_path: Path) -> None:
    server.answers["POST /v1/videos"] = problem(400, "guidance_scale must be finite", code="invalid_request", param="guidance_scale")
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url, "--guidance-scale", "nan")
    assert refused(result, code=2) == "guidance_scale must be finite"


def test_a_family_without_weights_says_how_to_name_them(tmp_path: Path) -> None:
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--model", "aiprod")
    assert refused(result, code=1).startswith("family aiprod ships no weights")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--weights", str(tmp_path))
    assert refused(result, code=1).startswith(f"{tmp_path / 'text_encoder.safetensors'} does not exist")


def test_serve_refuses_a_config_that_is_not_there() -> None:
    assert "no_config.yaml" in refused(run("serve", "--config", "no_config.yaml"), code=1)


def test_serve_refuses_a_port_that_is_taken(server: StandIn) -> None:
    result = run("serve", "--port", str(server.server_port))
    assert refused(result, code=1) == f"port {server.server_port} is taken; stop what listens there, or choose another with --port"


def test_a_failed_video_is_a_failure_in_the_server_s_words(server: StandIn, tmp_path: Path) -> None:
    server.script = [{"status": "failed", "error": {"code": "worker_lost", "message": "the worker was lost 5 times"}}]
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url)
    assert refused(result, code=1) == "the worker was lost 5 times"


def test_a_video_that_failed_for_what_was_asked_is_bad_input(server: StandIn, tmp_path: Path) -> None:
    server.script = [{"status": "failed", "error": {"code": "not_finite", "message": "less guidance"}}]
    result = run("generate", "a red ball", "-o", str(tmp_path / "out.mp4"), "--server", server.url)
    assert refused(result, code=2) == "less guidance"


def test_a_fault_of_the_server_names_the_request_that_its_log_knows(server: StandIn) -> None:
    headers = {"x-request-id": "the-request", "x-should-retry": "false"}
    server.answers["GET /v1/models"] = problem(500, "the server failed", code="internal", headers=headers)
    assert refused(run("models", server=server.url), code=1) == "the server failed (request the-request)"


def test_models_are_the_server_s_if_one_answers(server: StandIn) -> None:
    result = run("models", "--json", server=server.url)
    assert json.loads(result.stdout) == {"server": server.url, "data": [{"id": "miniature", "object": "model"}]}


def test_models_are_those_of_this_process_otherwise() -> None:
    result = run("models")
    assert result.stderr == "in this process\n"
    (_, row) = result.stdout.splitlines()
    assert row.split()[0] == "miniature"
    assert "ti2vid_two_stages" in row and "128x128" in row


@pytest.mark.parametrize("code", [0, 2])
def test_training_gets_its_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    ran: list[list[str]] = []

    def note(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", note)
    arguments = ["recipe.yaml", "--folder", "runs/mine", "schedule.steps=100", "--help"]
    assert run("train", *arguments).exit_code == code
    assert ran == [[sys.executable, "-m", "aiprod_components.training", *arguments]]


def test_help_needs_none_of_the_heavy_packages() -> None:
    """They take seconds to import."""
    heavy = "{'torch', 'ray', 'transformers', 'sqlalchemy', 'grpc', 'openai'}"
    script = f"import sys; from aiprod_client.cli import app; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
