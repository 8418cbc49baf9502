"""serve_config.yaml on a real cluster: the same frames as in this process, bad inputs, cancellation, what the caller holds"""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from ray import serve

from aiprod_components.errors import UnavailableError
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, best_device
from aiprod_components.local import run_plan as run_here
from aiprod_components.pipelines import parse_request, pipelines_of
from aiprod_components.plan import Plan
from aiprod_components.values import Video
from benchmarks.big_tensors import APPLICATION, deploy, make_plan
from deployments.api.body import parse_json
from deployments.api.wire import Wire
from deployments.runner import find_stages, run_plan
from tests.bodies import body_for, footage, image_url, picture, video_url
from tests.graph import PATIENCE, THREADS, Graph, serve_client

pytestmark = pytest.mark.timeout(PATIENCE + 60)

SMALL = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2, "seed": 3}
FAMILY = make_family("miniature")


def small_plan(**fields: Any) -> Plan:
    record = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2, "seed": 3, **fields}
    return parse_request(record, family=FAMILY).plan(FAMILY)


@pytest.fixture(scope="module")
def here() -> Iterator[LocalStages]:
    """The stages in this process, with as many threads as on the cluster."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield LocalStages(FAMILY, device=best_device())
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def http(graph: Graph) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def replicas() -> set[str]:
    """Every running replica of every stage, by the id that it never shares."""
    states = serve_client().get_serve_details()["applications"]
    return {f"{r['replica_id']} {r['pid']}" for app in states.values() for d in app["deployments"].values() for r in d["replicas"]}


@pytest.mark.parametrize("pipeline", pipelines_of(FAMILY))
def test_the_same_frames_in_this_process_by_handle_and_over_http(pipeline: str, here: LocalStages, http: httpx.Client) -> None:
    body = body_for(pipeline)
    plan = Wire({FAMILY.name: FAMILY}).read(parse_json(json.dumps(body).encode())).plan
    expected: Video = run_here(plan, stages=here)
    by_handle: Video = serve.get_app_handle("miniature").run.remote(plan).result().open()
    answer = http.post("/v1/videos/sync", json=body)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    # Not the files: x264 makes other bytes of the same frames where it has other cores to use.
    assert answer.headers["x-aiprod-frames-sha256"] == by_handle.frames_digest == expected.frames_digest
    assert (answer.headers["x-aiprod-seed"], answer.headers["x-aiprod-pipeline"]) == ("3", pipeline)


def test_the_answer_says_how_long_each_step_took_and_where(http: httpx.Client) -> None:
    files = {"input_reference": ("first.png", picture(), "image/png")}
    answer = http.post("/v1/videos/sync", data={name: str(value) for name, value in SMALL.items()}, files=files)
    assert answer.status_code == 200, answer.text
    entries = [entry.split(";") for entry in answer.headers["server-timing"].split(", ")]
    steps = [name for name, *_ in entries]
    assert set(steps[:-2]) == {"prompt", "first_frame_half", "first_frame", "draft", "doubled", "refined", "video"}
    assert steps[-2:] == ["queue", "total"]
    milliseconds = {name: float(dur.removeprefix("dur=")) for name, dur, *_ in entries}
    assert sum(milliseconds[name] for name in steps[:-2]) <= milliseconds["total"] * 1.5
    assert ["draft", f"dur={milliseconds['draft']}", 'desc="denoiser"'] in entries


def test_both_denoisers_make_the_same_frames(graph: Graph) -> None:
    async def four() -> list[Any]:
        stages = find_stages("miniature")
        return await asyncio.gather(*(run_plan(small_plan(num_inference_steps=8), handles=stages) for _ in range(4)))

    sealed = asyncio.run(four())
    assert len({s.open().frames_digest for s in sealed}) == 1
    assert len({receipt.replica for s in sealed for receipt in s.receipts if receipt.stage == "denoiser"}) == 2


@pytest.mark.usefixtures("graph")
def test_a_family_that_is_not_deployed_may_come() -> None:
    with pytest.raises(UnavailableError, match="model ltx2 is not running yet"):
        find_stages("ltx2")


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt", "at least 1 character"),
    "a blank prompt": ({"prompt": " \n\u200b"}, "prompt", "describe what the video shows"),
    "a size off the grid": ({"size": "100x64"}, "size", "nearest is 96"),
    "no frames": ({"num_frames": 0}, "num_frames", "1 to 241"),
    "10,000 frames": ({"num_frames": 10_000}, "num_frames", "1 to 241"),
    "NaN guidance": ({"guidance_scale": float("nan")}, "guidance_scale", "finite"),
    "an unknown field": ({"colour": "red"}, "colour", "the fields are"),
    "an empty reference": ({"reference_video": video_url(b"")}, "reference_video", "empty"),
    "a reference of another aspect": ({"reference_video": video_url(footage(96, 64))}, "reference_video", "crop it to 64x64"),
    "a keyframe after the end": ({"keyframes": [{"frame": 99, **image_url(picture())}]}, "keyframes", "0 to 4"),
    "a LoRA that is not there": ({"loras": [{"name": "noir"}]}, "loras", "there is"),
    "a LoRA's scale": ({"loras": [{"name": "canny", "scale": 99}]}, "loras.0.scale", "less than or equal to 2"),
    "a text for a picture": ({"input_reference": image_url(b"not a picture")}, "input_reference", "PNG, JPEG, WEBP"),
    "a truncated picture": ({"input_reference": image_url(picture()[:-30])}, "input_reference", "save it again"),
    "a picture 30,000 pixels wide": ({"input_reference": image_url(picture(30_000, 2))}, "input_reference", "8192"),
}


def test_bad_inputs_are_refused_by_name_and_harm_nobody(http: httpx.Client) -> None:
    before = replicas()
    for name, (fields, param, way_out) in BAD.items():
        body = {**SMALL, **fields}
        if "reference_video" in fields:
            del body["num_inference_steps"]  # the pipeline that it means has its own
        answer = http.post("/v1/videos/sync", content=json.dumps(body), headers={"content-type": "application/json"})
        problem = answer.json()
        assert answer.status_code == problem["status"] == 400, name
        assert answer.headers["content-type"] == "application/problem+json" and len(answer.headers.get_list("x-request-id")) == 1, name
        assert problem["error"]["param"] == param and way_out in problem["detail"] and "Traceback" not in answer.text, name
    assert http.post("/v1/videos/sync", json={**SMALL, "model": "sora-2"}).status_code == 404
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert "GET /openapi.json" in http.get("/v1/nothing").json()["detail"]
    assert "GET /openapi.json" in http.delete("/v1/models").json()["detail"]
    torn = http.post("/v1/videos/sync", content=b"--x\r\n", headers={"content-type": "multipart/form-data"})
    assert (torn.status_code, torn.json()["error"]["code"]) == (400, "invalid_request")
    assert http.post("/v1/videos/sync", json=SMALL).status_code == 200
    assert replicas() == before


def test_a_body_beyond_the_limit_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/videos/sync", content=b" " * 36_000_000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_the_server_says_what_it_is(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    applications = {"miniature": "RUNNING", "api": "RUNNING"}
    assert http.get("/readyz").json() == {"status": "ready", "applications": applications, "unplaced": {}}
    assert set(http.get("/v1/models").json()["data"][0]["pipelines"]) == set(pipelines_of(FAMILY))
    assert http.post("/v1/plans", json=SMALL).json()["totals"]["network_calls"] == 2 * 2 + 2 + 1 + 3 + 1
    assert [http.get(page).status_code for page in ("/docs", "/redoc")] == [404, 404]
    assert {"/v1/videos/sync", "/v1/plans", "/v1/models", "/healthz", "/readyz"} <= set(http.get("/openapi.json").json()["paths"])


def seconds_of(step: str, answer: httpx.Response) -> float:
    """From `Server-Timing`."""
    entries = (entry.split(";") for entry in answer.headers["server-timing"].split(", "))
    return next(float(dur.removeprefix("dur=")) / 1000 for name, dur, *_ in entries if name == step)


def test_a_client_that_hangs_up_frees_the_stages(graph: Graph, http: httpx.Client) -> None:
    long = {"prompt": "a red ball", "num_frames": 33, "size": "256x256", "num_inference_steps": 100, "pipeline": "ti2vid_one_stage"}

    def hang_up() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{graph.url}/v1/videos/sync", json=long, timeout=2, trust_env=False)

    one_step = seconds_of("draft", http.post("/v1/videos/sync", json={**long, "num_inference_steps": 1}))
    usual = seconds_of("total", http.post("/v1/videos/sync", json=SMALL))
    before = replicas()
    with ThreadPoolExecutor(4) as clients:  # two for the denoisers, two that wait
        for done in [clients.submit(hang_up) for _ in range(4)]:
            done.result()
    # Of 200 steps on each denoiser, one was left to do when its client went.
    assert seconds_of("total", http.post("/v1/videos/sync", json=SMALL)) < 3 * usual + 50 * one_step
    assert replicas() == before


def resident_bytes() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024


def test_the_runner_s_memory_does_not_grow_with_what_it_orders(graph: Graph) -> None:
    handles = deploy()
    try:
        asyncio.run(run_plan(make_plan(1), handles=handles))
        before = resident_bytes()
        answer = asyncio.run(run_plan(make_plan(200), handles=handles)).open()
        grown = resident_bytes() - before
    finally:
        serve.delete(APPLICATION)
    assert answer.sum == 100_000_000  # as many ones, of two bytes each
    assert grown < 20_000_000
