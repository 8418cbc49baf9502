"""a graph of its own, of which parts are taken away -> a real Prometheus that reads it -> the alert that says so"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray import serve

from tests.graph import PATIENCE, Graph, deployment_of, graph_config, running_graph, serve_client
from tests.telemetry.prometheus import Prometheus, needs_prometheus, reading
from tests.telemetry.test_causes import AT_ONCE

pytestmark = [pytest.mark.slow, needs_prometheus, pytest.mark.timeout(3 * PATIENCE)]


@dataclass(frozen=True)
class Scene:
    graph: Graph
    prometheus: Prometheus

    def fires(self, alert: str) -> bool:
        return self.prometheus.wait(lambda p: alert in p.firing(), seconds=PATIENCE)

    def is_quiet(self, *alerts: str) -> bool:
        return self.prometheus.wait(lambda p: p.query("aiprod_dispatchers > 0") and not set(alerts) & p.firing(), seconds=PATIENCE)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Of a graph whose refiner goes when nobody needs it, and is slow to come."""
    config = graph_config()
    refiner = deployment_of(config, "refiner")
    del refiner["num_replicas"]
    refiner["autoscaling_config"] = {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 600, "target_ongoing_requests": 1}
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with (
        running_graph(config) as graph,
        reading(folder, {"aiprod": graph.url.removeprefix("http://")}, rules=AT_ONCE, every="5s") as prometheus,
    ):
        yield Scene(graph, prometheus)


def test_a_stage_without_a_replica_that_jobs_wait_for(scene: Scene) -> None:
    assert scene.is_quiet("AiprodStageHasNoReplica")
    with scene.graph.client() as client:
        video = client.post("/v1/videos", json={"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2}).json()
        assert scene.fires("AiprodStageHasNoReplica")
        assert client.post(f"/v1/videos/{video['id']}/cancel").status_code == 200
    assert scene.is_quiet("AiprodStageHasNoReplica")


def test_a_dispatcher_that_stands_still(scene: Scene) -> None:
    assert scene.is_quiet("AiprodNoDispatcher")
    pid = pid_of("dispatcher")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert scene.fires("AiprodNoDispatcher")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert scene.is_quiet("AiprodNoDispatcher")


def test_an_application_that_is_taken_down(scene: Scene) -> None:
    assert scene.is_quiet("AiprodApplicationNotRunning")
    serve.delete("miniature")
    assert scene.fires("AiprodApplicationNotRunning")


def test_an_api_that_is_gone(scene: Scene) -> None:
    assert scene.is_quiet("AiprodMetricsAbsent")
    serve.delete("api")
    assert scene.fires("AiprodMetricsAbsent")


def pid_of(deployment: str) -> int:
    (replica,) = serve_client().get_serve_details()["applications"]["api"]["deployments"][deployment]["replicas"]
    return replica["pid"]
