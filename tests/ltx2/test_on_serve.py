"""miniature and ltx2 on one cluster -> videos with sound, bit by bit as diffusers makes them; ltx2 comes, goes and breaks alone

In this order: a start of ltx2 takes a minute.
"""

import copy
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import torch

from aiprod_components.families import make_family
from aiprod_components.stages import stages_of
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.settings import FamilyArgs
from tests.graph import PATIENCE, THREADS, graph_config
from tests.ltx2.conftest import FolderOf
from tests.ltx2.serving import Serving, serving
from tests.ltx2.whole import Shown, TwoStages

pytestmark = pytest.mark.timeout(PATIENCE + 120)

IDLE = {"vae_encoder", "audio_encoder"}  # of what a request brings, and these bring nothing
AAC_FRAME = 1024 / 48_000  # seconds
REQUEST = {
    "prompt": "a fox runs over snow",
    "negative_prompt": "blurry",
    "seed": 5,
    "num_frames": 9,
    "size": "128x64",
    "num_inference_steps": 2,
}
MINIATURE = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2}


@pytest.fixture(scope="module")
def args(folder_of: FolderOf) -> dict[str, Any]:
    loras = folder_of("2.3").parent / "loras"
    return {"name": "ltx2", "weights": str(folder_of("2.3")), "loras": str(loras), "variant": "dev", "precision": "float32"}


@pytest.fixture(scope="module")
def config(args: dict[str, Any]) -> dict[str, Any]:
    """The product's own, and beside the miniature ltx2, whose stages get what CPUs are left."""
    config = graph_config()
    miniature, api = config["applications"]
    by_name = {deployment["name"]: deployment for deployment in miniature["deployments"]}
    deployments = [copy.deepcopy(by_name["text_encoder"]) | {"name": stage} for stage in stages_of(make_family(**args))] + [
        copy.deepcopy(by_name["family"])
    ]
    for deployment in deployments:
        deployment["ray_actor_options"] = {"num_cpus": 0.05}
    ltx2 = {**miniature, "name": "ltx2", "args": args, "deployments": deployments}
    api["args"]["families"].append(args)
    return {**config, "applications": [miniature, ltx2, api]}


def without_ltx2(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "applications": [each for each in config["applications"] if each["name"] != "ltx2"]}


@pytest.fixture(scope="module")
def graph(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """At first without ltx2, which is offered all the same."""
    with serving(without_ltx2(config), data=tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(scope="module")
def http(graph: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=graph.url, timeout=PATIENCE, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def expected(args: dict[str, Any]) -> Shown:
    """REQUEST by diffusers' pipelines in this process."""
    family: Any = FamilyArgs(**args).make()
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    asked = Wire({"ltx2": family}).read(Body(dict(REQUEST), is_json=True))
    shown = TwoStages(family).run(asked.plan, {**REQUEST, "height": 64, "width": 128})
    torch.set_num_threads(before)
    return shown


def test_a_job_waits_for_ltx2_which_comes_while_the_miniature_works(graph: Serving, http: httpx.Client, config: dict[str, Any]) -> None:
    with working(http) as answers:
        waiting = http.post("/v1/videos", json={**REQUEST, "model": "ltx2", "num_inference_steps": 3}).json()["id"]
        wait_until(lambda: len(answers) > 1)
        assert state_of(http, "ltx2") == "ABSENT" and status_of(http, waiting) == "queued"
        graph.deploy(config)
        wait_until(lambda: state_of(http, "ltx2") == "RUNNING")
        wait_until(lambda: status_of(http, waiting) == "completed")
    assert set(answers) == {200}


def test_a_video_over_http_is_the_monoliths_and_has_sound_as_long_as_its_pictures(http: httpx.Client, expected: Shown) -> None:
    answer = http.post("/v1/videos/sync", json={**REQUEST, "model": "ltx2"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4", answer.text
    assert answer.headers["x-aiprod-frames-sha256"] == expected.frames_digest
    with av.open(io.BytesIO(answer.content), "r") as file:
        pictures, sound = file.streams.video[0], file.streams.audio[0]
        assert (sound.codec_context.name, sound.rate, sound.channels) == ("aac", 48_000, 2)
        lasts = [float((stream.duration or 0) * (stream.time_base or 0)) for stream in (pictures, sound)]
        samples = [frame.to_ndarray() for frame in file.decode(sound)]
    assert lasts[0] == pytest.approx(9 / 24, abs=1e-3) and lasts[1] == pytest.approx(lasts[0], abs=AAC_FRAME)
    assert max(float(abs(frame).max()) for frame in samples) > 0.01, "it can be heard"


def test_a_sound_alone_over_http_is_made_once_and_has_no_picture(http: httpx.Client) -> None:
    body = {"model": "ltx2/text_to_audio", "prompt": "a fox barks", "seed": 5, "seconds": 0.5, "num_inference_steps": 2}
    answers = [http.post("/v1/videos/sync", json=body) for _ in range(2)]
    assert [answer.headers["content-type"] for answer in answers] == ["audio/mp4"] * 2, answers[0].text
    assert answers[0].content == answers[1].content and answers[0].headers["x-aiprod-pipeline"] == "text_to_audio"
    with av.open(io.BytesIO(answers[0].content), "r") as file:
        assert file.duration == 500_000  # microseconds
    again = http.get(f"/v1/videos/{answers[1].headers['x-aiprod-video-id']}").json()
    assert [(line["step"], line["cache_hit"]) for line in again["stages"]] == [("sound", True)]
    wav = http.post("/v1/videos", json={**body, "output_format": "wav"}).json()["id"]
    wait_until(lambda: status_of(http, wav) == "completed")
    job = http.get(f"/v1/videos/{wav}").json()
    assert {line["step"]: line["cache_hit"] for line in job["stages"]} == {"prompt": True, "draft": True, "sound": False}
    assert (job["media_type"], job["frames_sha256"]) == ("audio/wav", again["frames_sha256"])
    assert http.get(f"/v1/videos/{wav}/content", params={"variant": "thumbnail"}).status_code == 404


def test_a_job_tells_its_steps_and_its_stages(http: httpx.Client, args: dict[str, Any]) -> None:
    body = {**REQUEST, "model": "ltx2", "num_frames": 33, "num_inference_steps": 100, "seed": 6}
    video = http.post("/v1/videos", json=body).json()
    with http.stream("GET", f"/v1/videos/{video['id']}/events") as events:
        told = [json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line.startswith("data: ")]
    last, steps = told[-1], [current for data in told if (current := data["current"]) and current["step"] == "draft" and current["total"]]
    assert (last["status"], last["progress"]) == ("completed", 100), last
    assert {step["total"] for step in steps} == {100} and any(0 < step["done"] < 100 for step in steps)
    assert [data["progress"] for data in told] == sorted(data["progress"] for data in told)
    ran = {line["step"]: line["stage"] for line in last["stages"]}
    assert set(ran.values()) == set(stages_of(make_family(**args))) - IDLE and (ran["draft"], ran["sound"]) == ("denoiser", "audio_decoder")


def test_both_models_are_listed_each_with_its_licence(http: httpx.Client) -> None:
    models = http.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["miniature", "ltx2"] and models["unavailable"] == []
    titles = {model["id"]: model["title"] for model in models["data"]}
    assert titles["ltx2"] == "LTX-2 2.3, dev, float32" and all(model["licence"] for model in models["data"])


def test_ltx2_goes_while_the_miniature_works(graph: Serving, http: httpx.Client, config: dict[str, Any]) -> None:
    with working(http) as answers:
        graph.deploy(without_ltx2(config))
        wait_until(lambda: state_of(http, "ltx2") == "ABSENT")
        waiting = http.post("/v1/videos", json={**REQUEST, "model": "ltx2", "num_inference_steps": 4}).json()["id"]
        before = len(answers)
        wait_until(lambda: len(answers) > before + 1)
        assert status_of(http, waiting) == "queued"
    assert set(answers) == {200}
    assert http.delete(f"/v1/videos/{waiting}").status_code == 200


@pytest.mark.slow
def test_ltx2_comes_back(graph: Serving, http: httpx.Client, config: dict[str, Any], expected: Shown) -> None:
    """What knew its stages before finds the new ones."""
    for seed in (REQUEST["seed"], 7):
        graph.deploy(config)
        wait_until(lambda: state_of(http, "ltx2") == "RUNNING")
        made = http.post("/v1/videos/sync", json={**REQUEST, "model": "ltx2", "seed": seed})
        assert made.status_code == 200 and (made.headers["x-aiprod-frames-sha256"] == expected.frames_digest) is (seed != 7)
        graph.deploy(without_ltx2(config))
        wait_until(lambda: state_of(http, "ltx2") == "ABSENT")


@pytest.mark.slow
def test_a_folder_that_is_cut_off_leaves_the_miniature_serving_and_ltx2_says_why(
    graph: Serving, http: httpx.Client, config: dict[str, Any], args: dict[str, Any], tmp_path: Path
) -> None:
    broken = cut_off(Path(args["weights"]), tmp_path / "LTX-2.3", file="vae/diffusion_pytorch_model.safetensors")
    damaged = copy.deepcopy(config)
    _, ltx2, api = damaged["applications"]
    ltx2["args"] = api["args"]["families"][1] = {**args, "weights": str(broken)}
    graph.deploy(damaged)
    wait_until(lambda: unavailable(http) != [] and state_of(http, "ltx2") == "DEPLOY_FAILED")
    assert http.post("/v1/videos/sync", json={**MINIATURE, "seed": 1}).status_code == 200
    ((name, reason),) = unavailable(http)
    assert name == "ltx2" and reason.startswith("LTX-2.3/vae/diffusion_pytorch_model.safetensors is damaged or cut off")
    assert reason.endswith("fetch it again")
    refused = http.post("/v1/videos", json={**REQUEST, "model": "ltx2"})
    assert refused.status_code == 503 and reason in refused.json()["detail"]
    assert http.get("/v1/graph").json()["families"]["ltx2"] == {"status": "DEPLOY_FAILED", "stages": [], "fault": reason}
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["miniature"]


def cut_off(folder: Path, to: Path, *, file: str) -> Path:
    """The same folder, of whose `file` the end is missing."""
    shutil.copytree(folder, to, copy_function=os.link)
    (to / file).unlink()
    (to / file).write_bytes((folder / file).read_bytes()[:-1000])
    return to


@contextmanager
def working(http: httpx.Client) -> Iterator[list[int]]:
    """Meanwhile one video of the miniature after the other is asked for; what comes is the status of each answer."""
    answers: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        seed = 0
        while not ended.is_set():
            seed += 1
            answers.append(http.post("/v1/videos/sync", json={**MINIATURE, "seed": seed}).status_code)
            ended.wait(1.0)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def status_of(http: httpx.Client, video_id: str) -> str:
    return http.get(f"/v1/videos/{video_id}").json()["status"]


def state_of(http: httpx.Client, family: str) -> str:
    return http.get("/readyz").json()["applications"][family]


def unavailable(http: httpx.Client) -> list[tuple[str, str]]:
    """While its replica is replaced the API may not answer."""
    try:
        answer = http.get("/v1/models")
    except httpx.HTTPError:
        return []
    return [(each["id"], each["reason"]) for each in answer.json().get("unavailable", [])] if answer.status_code == 200 else []
