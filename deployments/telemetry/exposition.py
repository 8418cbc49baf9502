"""what the database, the cluster and the dispatchers say -> one page in Prometheus' text format"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from deployments.jobs.records import IN_PROGRESS, QUEUED
from deployments.jobs.stock import Stock
from deployments.settings import ApiArgs
from deployments.telemetry import metrics
from deployments.telemetry.metrics import Metric, merged

__all__ = ["CONTENT_TYPE_LATEST", "page"]

Values = Mapping[tuple[str, ...], float]  # by the labels' values


def page(
    stock: Stock,
    *,
    args: ApiArgs,
    applications: Mapping[str, str],
    graph: Mapping[str, Any],
    tallies: Sequence[Iterable[Family]],
) -> bytes:
    """`graph` is what GET /v1/graph has as families, `tallies` what each dispatcher that answers has counted."""
    gauges = {
        **_of_stock(stock, families=list(graph)),
        **_of_graph(graph),
        metrics.QUEUE_LIMIT: {(): args.queue.max_queued_of_all},
        metrics.KEPT_LIMIT: {(): args.cache.max_bytes},
        metrics.RUNNING: {(name,): float(status == "RUNNING") for name, status in applications.items()},
        metrics.DISPATCHERS: {(): len(tallies)},
    }
    return generate_latest(_Page([*(_family(metric, values) for metric, values in gauges.items()), *merged(tallies)]))


def _of_stock(stock: Stock, *, families: Sequence[str]) -> dict[Metric, Values]:
    """A family of which nothing waits has a zero: a series that comes and goes draws no line."""
    counts = {(family, status): 0 for family in families for status in (QUEUED, IN_PROGRESS)} | stock.jobs
    return {
        metrics.QUEUE_JOBS: counts,
        metrics.OLDEST_WAIT: {(family,): seconds for family, seconds in (dict.fromkeys(families, 0.0) | stock.oldest).items()},
        metrics.WEBHOOKS: {(state,): number for state, number in stock.webhooks.items()},
        metrics.KEPT_BYTES: {(): stock.kept_bytes},
    }


def _of_graph(graph: Mapping[str, Any]) -> dict[Metric, Values]:
    stages = {(family, stage["name"]): stage for family, described in graph.items() for stage in described["stages"]}
    states = ("running", "queued")
    return {
        metrics.REPLICAS: {place: stage["replicas"] for place, stage in stages.items()},
        metrics.STAGE_JOBS: {(*place, state): stage[state] for place, stage in stages.items() for state in states},
    }


def _family(metric: Metric, values: Values) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


class _Page(Collector):
    """What the library takes for a registry: whatever can be collected."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)
