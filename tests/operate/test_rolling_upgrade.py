"""the graph under load, a stage's `user_config` with other weights -> every request answered, by the old ones or by the new ones"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from ray import serve
from ray.serve.schema import ServeDeploySchema

from aiprod_components.families import make_family
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.local import LocalStages, run_plan
from aiprod_components.pipelines import parse_request
from aiprod_components.values import Video
from deployments.assigning import TOLD_SECONDS
from tests.families.other_weights import perturbed
from tests.graph import PATIENCE, THREADS, Graph, deployment_of, serve_client

pytestmark = pytest.mark.timeout(PATIENCE + 60)

FAMILY = make_family("miniature")
ASKED = {"prompt": "a red ball", "num_frames": 5, "num_inference_steps": 2, "pipeline": "ti2vid_one_stage"}
EVERY = 0.5  # seconds between two requests
CLIENTS = 24


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturbed(tmp_path_factory.mktemp("weights") / "other", "denoiser")


@pytest.fixture(scope="module")
def http(graph: Graph) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


@pytest.fixture
def upgrade(graph: Graph) -> Iterator[Callable[[str | None], None]]:
    """Deploys the running config with these weights of the denoiser, as `serve deploy` does; afterwards it is as it was."""
    before, digest = graph.config, denoiser_of(graph)["weights"]

    def deploy(weights: str | None) -> None:
        config = copy.deepcopy(dict(before))
        deployment_of(config, "denoiser")["user_config"] |= {} if weights is None else {"weights": weights}
        serve_client().deploy_apps(ServeDeploySchema.model_validate(config))

    yield deploy
    deploy(None)
    wait_until(lambda: is_running() and denoiser_of(graph)["weights"] == digest)


def wait_until(true: Callable[[], bool]) -> float:
    """The seconds that it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < PATIENCE, "that does not come true"
        time.sleep(0.05)
    return time.monotonic() - began


def is_running() -> bool:
    return serve.status().applications["miniature"].status == "RUNNING"


def denoiser_of(graph: Graph) -> dict[str, Any]:
    stages = httpx.get(f"{graph.url}/v1/graph", trust_env=False, timeout=30).json()["families"]["miniature"]["stages"]
    return next(stage for stage in stages if stage["name"] == "denoiser")


def processes() -> set[int]:
    replicas = serve_client().get_serve_details()["applications"]["miniature"]["deployments"]["denoiser"]["replicas"]
    return {replica["pid"] for replica in replicas}


class Load:
    """Short videos, one every so many seconds whether or not the last is done; their seeds are in no other test's requests."""

    def __init__(self, http: httpx.Client, *, first_seed: int) -> None:
        self._http, self._stop, self._seed = http, threading.Event(), first_seed
        self._clients = ThreadPoolExecutor(CLIENTS + 1)
        self.answers: list[Future[httpx.Response]] = []
        self._asking = self._clients.submit(self._ask)

    def _ask(self) -> None:
        while not self._stop.wait(EVERY):
            self.one()

    def one(self) -> Future[httpx.Response]:
        self._seed += 1
        body = {**ASKED, "size": "64x64", "seed": self._seed}
        self.answers.append(self._clients.submit(self._http.post, "/v1/videos/sync", json=body))
        return self.answers[-1]

    def end(self) -> list[tuple[int, httpx.Response]]:
        self._stop.set()
        self._asking.result()
        first = self._seed - len(self.answers) + 1
        return [(first + number, answer.result()) for number, answer in enumerate(self.answers)]


def digest_here(seed: int, stages: LocalStages) -> str:
    plan = parse_request({**ASKED, "height": 64, "width": 64, "seed": seed}, family=FAMILY).plan(FAMILY)
    video: Video = run_plan(plan, stages=stages)
    return video.frames_digest


@pytest.fixture(scope="module")
def here(other: Path) -> Iterator[dict[str, LocalStages]]:
    """The old weights and the new ones in this process, with as many threads as on the cluster."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    families = {"old": FAMILY, "new": with_weights(FAMILY, "denoiser", other)}
    yield {name: LocalStages(family, device=torch.device("cpu")) for name, family in families.items()}
    torch.set_num_threads(before)


def made_by(answers: list[tuple[int, httpx.Response]], here: dict[str, LocalStages]) -> list[str]:
    """For each answer whose weights made exactly these frames."""
    said: list[str] = []
    for seed, answer in answers:
        assert answer.status_code == 200, answer.text
        made = answer.headers["x-aiprod-frames-sha256"]
        said.append(next((name for name, stages in here.items() if digest_here(seed, stages) == made), "neither"))
    return said


def test_other_weights_come_and_go_under_load_and_every_request_is_answered(
    graph: Graph, http: httpx.Client, upgrade: Callable[[str | None], None], other: Path, here: dict[str, LocalStages]
) -> None:
    pids, load, digest = processes(), Load(http, first_seed=710_000), denoiser_of(graph)["weights"]
    settled, expected = [load.one()], ["old"]
    settled[0].result()
    for weights, is_new in ((str(other), True), (None, False)):
        upgrade(weights)
        wait_until(lambda is_new=is_new: (denoiser_of(graph)["weights"] != digest) is is_new)  # the first replica has changed
        wait_until(is_running)
        time.sleep(TOLD_SECONDS)
        settled, expected = [*settled, load.one()], [*expected, "new" if is_new else "old"]
        settled[-1].result()
    answers = load.end()
    said = made_by(answers, here)
    assert set(said) == {"old", "new"} and [said[load.answers.index(answer)] for answer in settled] == expected
    assert processes() == pids


def test_a_broken_file_changes_nothing_but_what_the_graph_says(
    graph: Graph, http: httpx.Client, upgrade: Callable[[str | None], None], here: dict[str, LocalStages], tmp_path: Path
) -> None:
    broken = perturbed(tmp_path / "broken", "denoiser") / "denoiser.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1000])
    pids, load = processes(), Load(http, first_seed=720_000)
    upgrade(str(broken.parent))
    wait_until(lambda: "fault" in denoiser_of(graph))
    wait_until(is_running)
    load.one().result()
    assert set(made_by(load.end(), here)) == {"old"}
    assert "broken/denoiser.safetensors is not a whole safetensors file" in denoiser_of(graph)["fault"]
    assert str(tmp_path) not in denoiser_of(graph)["fault"]
    assert processes() == pids
    upgrade(None)
    wait_until(lambda: "fault" not in denoiser_of(graph))
