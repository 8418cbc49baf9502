"""THE METRICS on one page; and what a dispatcher counts of them, for whoever asks

A gauge is read when somebody asks: from the database, the applications and the dispatchers. Counters and histograms grow in the
dispatchers, each of which is told all that happens to its jobs; a series has its dispatcher's name, since it begins anew with it.
No label holds a tenant or a prompt.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric as Family

DISPATCHER = "dispatcher"  # the label that every counter and histogram has besides
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Metric:
    """A line of the table. A counter's name ends in _total; a histogram has _bucket, _sum and _count besides."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that Prometheus knows."""
        return tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count")) if self.kind == "histogram" else (self.name,)


QUEUE_JOBS = Metric("aiprod_queue_jobs", "gauge", "Jobs that wait (queued) and that are made (in_progress).", ("family", "status"))
OLDEST_WAIT = Metric("aiprod_queue_oldest_wait_seconds", "gauge", "How long the oldest job that waits has waited.", ("family",))
QUEUE_LIMIT = Metric("aiprod_queue_limit_jobs", "gauge", "Jobs that may wait; more are refused.")
WEBHOOKS = Metric("aiprod_webhooks", "gauge", "Events to be delivered (waiting), and that never will be (given_up).", ("state",))
KEPT_BYTES = Metric("aiprod_kept_bytes", "gauge", "Bytes of finished steps kept for requests to come.")
KEPT_LIMIT = Metric("aiprod_kept_limit_bytes", "gauge", "Bytes that they may take; beyond it the longest unused go.")
RUNNING = Metric("aiprod_application_running", "gauge", "1 where Serve says that the application is RUNNING, else 0.", ("application",))
DISPATCHERS = Metric("aiprod_dispatchers", "gauge", "Dispatchers that answer.")
REPLICAS = Metric("aiprod_stage_replicas", "gauge", "Running replicas of a stage.", ("family", "stage"))
STAGE_JOBS = Metric(
    "aiprod_stage_jobs", "gauge", "Jobs that a stage works on (running), and that wait for it (queued).", ("family", "stage", "state")
)

JOBS_ENDED = Metric(
    "aiprod_jobs_ended_total",
    "counter",
    "Jobs that ended while they were made, by status, and by the error's code (reason) where they failed.",
    ("family", "pipeline", "status", "reason"),
)
ATTEMPTS = Metric("aiprod_attempts_total", "counter", "Attempts at jobs that are over, by what came of them.", ("family", "outcome"))
JOB_SECONDS = Metric("aiprod_job_seconds", "histogram", "From asked for to completed.", ("family", "pipeline"), SECONDS)
WAIT_SECONDS = Metric("aiprod_job_wait_seconds", "histogram", "From asked for to claimed for the first time.", ("family",), SECONDS)
STAGE_SECONDS = Metric("aiprod_stage_run_seconds", "histogram", "Of one step on its stage.", ("family", "stage"), SECONDS)
STAGE_WAIT = Metric("aiprod_stage_queued_seconds", "histogram", "A step's wait, its inputs being there.", ("family", "stage"), SECONDS)
BATCH_SIZE = Metric("aiprod_batch_size", "histogram", "Requests in one sampler step of a stage.", ("family", "stage"), SIZES)
GPU_SECONDS = Metric("aiprod_gpu_seconds_total", "counter", "Seconds of work times the GPUs that did it.", ("family", "stage"))
CACHE_HITS = Metric("aiprod_cache_hits_total", "counter", "Steps that were found done and not run.", ("family", "stage"))
STORED_BYTES = Metric("aiprod_object_store_bytes_total", "counter", "Bytes put into the artifact store by stages.", ("family", "kind"))
LEASE_LOSSES = Metric(
    "aiprod_lease_losses_total",
    "counter",
    "Leases found expired by the reaper, and claims found taken by who had them.",
    ("reason",),
)
DELIVERIES = Metric("aiprod_webhook_deliveries_total", "counter", "Tries to deliver an event: delivered, put_off, given_up.", ("result",))

METRICS = (
    *(QUEUE_JOBS, OLDEST_WAIT, QUEUE_LIMIT, WEBHOOKS, KEPT_BYTES, KEPT_LIMIT, RUNNING, DISPATCHERS, REPLICAS, STAGE_JOBS),
    *(JOBS_ENDED, ATTEMPTS, JOB_SECONDS, WAIT_SECONDS, STAGE_SECONDS, STAGE_WAIT, BATCH_SIZE, GPU_SECONDS, CACHE_HITS, STORED_BYTES),
    *(LEASE_LOSSES, DELIVERIES),
)
# Those of which zero says something before anything has happened: a rate needs a first value.
FROM_ZERO = {
    LEASE_LOSSES: [{"reason": "expired"}, {"reason": "taken"}],
    DELIVERIES: [{"result": result} for result in ("delivered", "put_off", "given_up")],
}


class Tally:
    """One process's counters and histograms. Safe for threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._counters = {m: Counter(m.name, m.help, m.labels, registry=self._registry) for m in METRICS if m.kind == "counter"}
        self._histograms = {
            m: Histogram(m.name, m.help, m.labels, registry=self._registry, buckets=m.buckets) for m in METRICS if m.kind == "histogram"
        }
        for metric, every in FROM_ZERO.items():
            for labels in every:
                self.add(metric, 0, **labels)

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        self._counters[metric].labels(**labels).inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._histograms[metric].labels(**labels).observe(max(value, 0.0))

    def collect(self, name: str) -> list[Family]:
        """All of it, as `name`'s: plain data, to be sent on."""
        return [_named(family, name) for family in self._registry.collect()]


def _named(family: Family, dispatcher: str) -> Family:
    """When a series began, which the library adds, is left out: it would be a series more for each."""
    named = Family(family.name, family.documentation, family.type)
    named.samples = [
        sample._replace(labels={**sample.labels, DISPATCHER: dispatcher})
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    return named


def merged(tallies: Iterable[Iterable[Family]]) -> list[Family]:
    """Several dispatchers' in one: each family once."""
    families: dict[str, Family] = {}
    for family in (family for tally in tallies for family in tally):
        if family.name in families:
            families[family.name].samples.extend(family.samples)
        else:
            families[family.name] = family
    return list(families.values())
