"""THE DASHBOARDS on one page -> Grafana's JSON (`python -m k8s.dashboards`)

A panel is a title, a unit and what it shows; where it stands follows from the order. A test holds every metric that is named here
against the table of metrics, and Ray's own against a running cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ACROSS, HEIGHT, WIDTH = 3, 8, 24
SOURCE = {"type": "prometheus", "uid": "${source}"}
FAMILY = 'family=~"$family"'


@dataclass(frozen=True)
class Panel:
    """`shows` are expressions, each with the words of its legend."""

    title: str
    unit: str
    shows: tuple[tuple[str, str], ...]
    about: str = ""


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str, *, where: str = FAMILY) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str) -> str:
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'{by}, le')})"


def quantiles(histogram: str, by: str) -> tuple[tuple[str, str], ...]:
    legend = " ".join(f"{{{{{name.strip()}}}}}" for name in by.split(","))
    return tuple((quantile(q, histogram, by), f"{legend} p{round(100 * q)}") for q in (0.5, 0.95))


SERVICE = Dashboard(
    "aiprod-service",
    "AIPROD: the service",
    (
        Panel(
            "Jobs",
            "short",
            (
                (f"max by (family, status) (aiprod_queue_jobs{{{FAMILY}}})", "{{family}} {{status}}"),
                ("max(aiprod_queue_limit_jobs)", "limit"),
            ),
            "Beyond the limit new ones are refused with 429.",
        ),
        Panel("Oldest wait", "s", ((f"max by (family) (aiprod_queue_oldest_wait_seconds{{{FAMILY}}})", "{{family}}"),)),
        Panel("Wait until claimed", "s", quantiles("aiprod_job_wait_seconds", "family")),
        Panel("From asked for to completed", "s", quantiles("aiprod_job_seconds", "family, pipeline")),
        Panel("Jobs that ended", "ops", ((rate("aiprod_jobs_ended_total", "family, status"), "{{family}} {{status}}"),)),
        Panel("Why jobs failed", "ops", ((rate("aiprod_jobs_ended_total", "reason", where=f'{FAMILY},status="failed"'), "{{reason}}"),)),
        Panel("Attempts, by what came of them", "ops", ((rate("aiprod_attempts_total", "family, outcome"), "{{family}} {{outcome}}"),)),
        Panel(
            "Leases lost",
            "ops",
            (("sum by (reason) (rate(aiprod_lease_losses_total[$__rate_interval]))", "{{reason}}"),),
            "Expired: found by the reaper. Taken: found by who had them.",
        ),
        Panel(
            "Running",
            "bool",
            (("min by (application) (aiprod_application_running)", "{{application}}"), ("max(aiprod_dispatchers)", "dispatchers")),
        ),
        Panel(
            "Webhooks",
            "ops",
            (("sum by (result) (rate(aiprod_webhook_deliveries_total[$__rate_interval]))", "{{result}}"),),
        ),
        Panel("Webhooks that are left", "short", (("max by (state) (aiprod_webhooks)", "{{state}}"),)),
        Panel("HTTP", "reqps", (("sum by (route) (rate(ray_serve_num_http_requests_total[$__rate_interval]))", "{{route}}"),)),
    ),
)

STAGES = Dashboard(
    "aiprod-stages",
    "AIPROD: the stages",
    (
        Panel("A step on its stage", "s", quantiles("aiprod_stage_run_seconds", "family, stage")),
        Panel("A step's wait for its stage", "s", quantiles("aiprod_stage_queued_seconds", "family, stage")),
        Panel(
            "Jobs on stages",
            "short",
            ((f"max by (family, stage, state) (aiprod_stage_jobs{{{FAMILY}}})", "{{family}} {{stage}} {{state}}"),),
        ),
        Panel("Replicas", "short", ((f"max by (family, stage) (aiprod_stage_replicas{{{FAMILY}}})", "{{family}} {{stage}}"),)),
        Panel("Steps run", "ops", ((rate("aiprod_stage_run_seconds_count", "family, stage"), "{{family}} {{stage}}"),)),
        Panel("Steps found done", "ops", ((rate("aiprod_cache_hits_total", "family, stage"), "{{family}} {{stage}}"),)),
        Panel(
            "Requests in one sampler step",
            "short",
            (
                (
                    f"{rate('aiprod_batch_size_sum', 'family, stage')} / {rate('aiprod_batch_size_count', 'family, stage')}",
                    "{{family}} {{stage}}",
                ),
            ),
        ),
        Panel(
            "GPUs at work", "short", ((rate("aiprod_gpu_seconds_total", "family, stage"), "{{family}} {{stage}}"),), "GPU seconds a second."
        ),
        Panel("GPU utilization", "percent", (("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}"),)),
        Panel("GPU memory", "decmbytes", (("ray_node_gram_used", "{{instance}} {{GpuIndex}}"),)),
        Panel("Put into the artifact store", "Bps", ((rate("aiprod_object_store_bytes_total", "kind"), "{{kind}}"),)),
        Panel("Kept steps", "bytes", (("max(aiprod_kept_bytes)", "kept"), ("max(aiprod_kept_limit_bytes)", "bound"))),
        Panel("Ray's object store", "bytes", (("sum by (instance) (ray_object_store_memory)", "{{instance}}"),)),
        Panel("Memory of nodes", "bytes", (("ray_node_mem_used", "{{instance}}"),)),
        Panel("Processors of nodes", "percent", (("ray_node_cpu_utilization", "{{instance}}"),)),
    ),
)

DASHBOARDS = (SERVICE, STAGES)


def model(dashboard: Dashboard) -> dict[str, Any]:
    """Grafana's own form."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["aiprod"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source(), _families()]},
        "panels": list(_panels(dashboard)),
    }


def expressions() -> Iterator[tuple[str, str]]:
    """Each, with the panel that it is in."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            yield from ((f"{dashboard.uid}: {panel.title}", expression) for expression, _ in panel.shows)


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    width = WIDTH // ACROSS
    for number, panel in enumerate(dashboard.panels):
        yield {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.about,
            "datasource": SOURCE,
            "gridPos": {"x": width * (number % ACROSS), "y": HEIGHT * (number // ACROSS), "w": width, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                for place, (expression, legend) in enumerate(panel.shows)
            ],
        }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _families() -> dict[str, Any]:
    query = "label_values(aiprod_queue_jobs, family)"
    choice = {"includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return {"name": "family", "label": "Family", "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, **choice}
