"""the running graph -> a real Prometheus reads it: the service's page, and Ray's own beside it"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from deployments.telemetry.metrics import METRICS
from tests.graph import PATIENCE, Graph
from tests.telemetry.prometheus import needs_prometheus, reading
from tests.telemetry.test_alerts import RAYS

pytestmark = pytest.mark.timeout(PATIENCE + 120)

OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
# Which nothing has happened to that would make a series of them: no job failed for lack of a lease, nobody waits for a webhook.
BODY = {"prompt": "a blue square", "num_frames": 5, "size": "64x64", "num_inference_steps": 3, "seed": 77}


@pytest.fixture(scope="module")
def http(graph: Graph) -> Iterator[httpx.Client]:
    """With one job made, and made again: then there is something to be read of everything."""
    with graph.client() as client:
        for body in (BODY, BODY):
            assert client.post("/v1/videos/sync", json=body).status_code == 200
        yield client


def test_the_page_has_every_metric_of_the_table(http: httpx.Client) -> None:
    answer = http.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert family.samples, f"{metric.name} has no series"
        assert {sample.name for sample in family.samples} == set(metric.series)
    assert all(len(name) for name in families)


@needs_prometheus
def test_prometheus_reads_the_service_and_ray(graph: Graph, http: httpx.Client, tmp_path: Path) -> None:
    (node,) = ray.nodes()
    targets = {"aiprod": graph.url.removeprefix("http://"), "ray": f"127.0.0.1:{node['MetricsExportPort']}"}
    with reading(tmp_path, targets, every="5s") as prometheus:
        assert prometheus.wait(lambda p: p.targets() == {"aiprod": "up", "ray": "up"}), prometheus.targets()
        assert prometheus.wait(lambda p: p.query('aiprod_application_running{application="miniature"} == 1'))
        assert float(prometheus.query('sum(aiprod_jobs_ended_total{status="completed"})')[0]["value"][1]) >= 2
        for name in RAYS - OF_GPUS:
            assert prometheus.wait(lambda p, name=name: p.query(name)), f"Ray says nothing of {name}"
