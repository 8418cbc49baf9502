"""THE ALERTS on one page -> rules.yaml for any Prometheus, prometheusrule.yaml for its operator (`python -m k8s.alerts`)

What each means, and what to do, is in docs/runbook.md under its name; a test holds the two together.
"""

from dataclasses import dataclass
from typing import Any, Literal

RUNBOOK = "docs/runbook.md"
PAGE, TICKET = "page", "ticket"  # somebody is woken, or reads it in the morning


@dataclass(frozen=True)
class Alert:
    """Fires when `expr` has held for so long."""

    name: str
    expr: str
    holds: str
    severity: Literal["page", "ticket"]
    summary: str


# increase() reaches out to the ends of its span, and so tells a little more than there was: a count of N is between N and N + 1/2.
ALERTS = (
    Alert(
        "AiprodMetricsAbsent",
        "absent(aiprod_dispatchers)",
        "3m",
        PAGE,
        "No page of metrics has been read: the API is down, its database is, or Prometheus is not let in.",
    ),
    Alert(
        "AiprodApplicationNotRunning",
        "min by (application) (aiprod_application_running) == 0",
        "5m",
        PAGE,
        "Application {{ $labels.application }} is not running: its videos wait.",
    ),
    Alert(
        "AiprodNoDispatcher",
        "max(aiprod_dispatchers) == 0",
        "2m",
        PAGE,
        "No dispatcher answers: jobs are accepted, and nobody makes them.",
    ),
    Alert(
        "AiprodQueueIsOld",
        "max by (family) (aiprod_queue_oldest_wait_seconds) > 600",
        "5m",
        TICKET,
        "A job of {{ $labels.family }} has waited for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "AiprodQueueNearlyFull",
        'sum(max by (family) (aiprod_queue_jobs{status="queued"})) > 0.8 * max(aiprod_queue_limit_jobs)',
        "2m",
        PAGE,
        "{{ $value }} jobs wait; at the limit new ones are refused with 429.",
    ),
    Alert(
        "AiprodJobsFail",
        'sum by (family) (increase(aiprod_jobs_ended_total{status="failed",reason!~"invalid_.*|not_finite"}[15m]))'
        ' > 0.05 * sum by (family) (increase(aiprod_jobs_ended_total{status!="cancelled"}[15m]))',
        "5m",
        PAGE,
        "More than one in twenty jobs of {{ $labels.family }} fails, and not by its request.",
    ),
    Alert(
        "AiprodAttemptsAreLost",
        'sum(increase(aiprod_lease_losses_total{reason="expired"}[15m])) > 2.5',
        "0m",
        TICKET,
        "{{ $value | humanize }} leases ran out within 15 minutes: dispatchers die or stand still.",
    ),
    Alert(
        "AiprodJobsArePutBack",
        'sum by (family) (increase(aiprod_attempts_total{outcome="put_back"}[15m])) > 10.5',
        "5m",
        TICKET,
        "Jobs of {{ $labels.family }} are claimed and put back: a stage, its weights or the artifact store is not there.",
    ),
    Alert(
        "AiprodStageHasNoReplica",
        "max by (family, stage) (aiprod_stage_replicas) == 0 and on (family, stage) max by (family, stage)"
        ' (aiprod_stage_jobs{state="queued"}) > 0',
        "5m",
        PAGE,
        "Jobs wait for {{ $labels.family }}'s {{ $labels.stage }}, which has no replica.",
    ),
    Alert(
        "AiprodStageIsTheBottleneck",
        "histogram_quantile(0.9, sum by (family, stage, le) (rate(aiprod_stage_queued_seconds_bucket[10m]))) > 60",
        "10m",
        TICKET,
        "One step in ten waits {{ $value | humanizeDuration }} and more for {{ $labels.family }}'s {{ $labels.stage }}.",
    ),
    Alert(
        "AiprodWebhooksGivenUp",
        'sum(increase(aiprod_webhook_deliveries_total{result="given_up"}[1h])) > 0',
        "0m",
        TICKET,
        "{{ $value | humanize }} events will never arrive.",
    ),
    Alert(
        "AiprodWebhooksPileUp",
        'max(aiprod_webhooks{state="waiting"}) > 100',
        "15m",
        TICKET,
        "{{ $value }} events wait to be delivered.",
    ),
    Alert(
        "AiprodKeptStepsOverflow",
        "max(aiprod_kept_bytes) > 1.5 * max(aiprod_kept_limit_bytes) + 1e9",
        "30m",
        TICKET,
        "Kept steps take {{ $value | humanize1024 }}B, far beyond their bound: nothing clears them away.",
    ),
)


def rules() -> dict[str, Any]:
    """In Prometheus' own form."""
    return {"groups": [{"name": "aiprod", "rules": [_rule(alert) for alert in ALERTS]}]}


def resource() -> dict[str, Any]:
    """The same for the Prometheus operator."""
    metadata = {"name": "aiprod", "labels": {"app.kubernetes.io/part-of": "aiprod"}}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": rules()}


def _rule(alert: Alert) -> dict[str, Any]:
    annotations = {"summary": alert.summary, "runbook": f"{RUNBOOK}#{alert.name.lower()}"}
    labels = {"severity": alert.severity}
    return {"alert": alert.name, "expr": alert.expr, "for": alert.holds, "labels": labels, "annotations": annotations}
