"""the tables of alerts and dashboards -> their files, as they are written; every metric that they name exists; what fires when"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.telemetry.metrics import METRICS
from k8s.alerts import ALERTS, rules
from k8s.alerts.__main__ import files as alert_files
from k8s.dashboards import expressions
from k8s.dashboards.__main__ import files as dashboard_files
from tests.telemetry.prometheus import needs_promtool

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
OURS = {name for metric in METRICS for name in metric.series}
# What Ray exports besides, of which test_scraping.py sees those that a machine without a GPU has.
RAYS = {
    "ray_serve_num_http_requests_total",
    "ray_object_store_memory",
    "ray_node_mem_used",
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
}
NAMED = re.compile(r"\b(?:aiprod|ray)_[a-z0-9_]+")


@pytest.mark.parametrize("path", [*alert_files(), *dashboard_files()], ids=lambda path: path.name)
def test_the_files_are_as_they_are_written(path: Path) -> None:
    expected = {**alert_files(), **dashboard_files()}[path]
    assert path.read_text(encoding="utf-8") == expected, "run: python -m k8s.alerts; python -m k8s.dashboards"


def test_every_metric_that_is_named_exists() -> None:
    asked = [(alert.name, alert.expr) for alert in ALERTS] + list(expressions())
    unknown = {where: names - OURS - RAYS for where, expression in asked if (names := set(NAMED.findall(expression))) - OURS - RAYS}
    assert unknown == {} and len(asked) > 40


def test_every_metric_is_looked_at_by_somebody() -> None:
    looked_at = {name for _, expression in expressions() for name in NAMED.findall(expression)}
    assert {metric.name for metric in METRICS if not looked_at & set(metric.series)} == set()


def test_the_runbook_says_of_each_alert_what_it_means_and_what_to_do() -> None:
    sections = dict(re.findall(r"^## (Aiprod\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    assert list(sections) == [alert.name for alert in ALERTS]
    for name, text in sections.items():
        assert all(f"**{word}**" in text for word in ("Means", "Do", "Tried")), name


def promtool(*arguments: str) -> None:
    answer = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@needs_promtool
def test_promtool_reads_the_rules() -> None:
    for path in alert_files():
        if path.name == "rules.yaml":
            promtool("check", "rules", str(path))


@needs_promtool
def test_promtool_reads_what_dashboards_ask(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m").replace("$family", ".*") for _, expression in expressions()]
    recorded = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": recorded}]}))
    promtool("check", "rules", str(tmp_path / "asked.yaml"))


# What is read once a minute for half an hour, and whether the alert fires then: one time as it should not, another as it should.
DISPATCHER = 'dispatcher="a"'
FAILED = f'aiprod_jobs_ended_total{{family="m",status="failed",reason="internal",{DISPATCHER}}}'
INVALID = f'aiprod_jobs_ended_total{{family="m",status="failed",reason="invalid_media",{DISPATCHER}}}'
COMPLETED = f'aiprod_jobs_ended_total{{family="m",status="completed",reason="",{DISPATCHER}}}'
WAIT = 'aiprod_stage_queued_seconds_bucket{family="m",stage="denoiser",dispatcher="a",le="%s"}'
CASES: list[tuple[str, dict[str, str], bool]] = [
    ("AiprodMetricsAbsent", {"aiprod_dispatchers": "1x40"}, False),
    ("AiprodMetricsAbsent", {"aiprod_dispatchers": "1x20 _x20"}, True),
    ("AiprodApplicationNotRunning", {'aiprod_application_running{application="m"}': "0x2 1x40"}, False),
    ("AiprodApplicationNotRunning", {'aiprod_application_running{application="m"}': "1x20 0x20"}, True),
    ("AiprodNoDispatcher", {"aiprod_dispatchers": "1x40"}, False),
    ("AiprodNoDispatcher", {"aiprod_dispatchers": "1x20 0x20"}, True),
    ("AiprodQueueIsOld", {'aiprod_queue_oldest_wait_seconds{family="m"}': "600x40"}, False),
    ("AiprodQueueIsOld", {'aiprod_queue_oldest_wait_seconds{family="m"}': "0+60x40"}, True),
    (
        "AiprodQueueNearlyFull",
        {
            'aiprod_queue_jobs{family="m",status="queued"}': "50x40",
            'aiprod_queue_jobs{family="m",status="in_progress"}': "80x40",
            "aiprod_queue_limit_jobs": "100x40",
        },
        False,
    ),
    (
        "AiprodQueueNearlyFull",
        {
            'aiprod_queue_jobs{family="m",status="queued"}': "50x40",
            'aiprod_queue_jobs{family="n",status="queued"}': "31x40",
            "aiprod_queue_limit_jobs": "100x40",
        },
        True,
    ),
    ("AiprodJobsFail", {COMPLETED: "0+50x40", FAILED: "0+2x40"}, False),
    ("AiprodJobsFail", {COMPLETED: "0+5x40", INVALID: "0+5x40"}, False),
    ("AiprodJobsFail", {COMPLETED: "0+10x40", FAILED: "0+1x40"}, True),
    ("AiprodAttemptsAreLost", {'aiprod_lease_losses_total{reason="expired",dispatcher="a"}': "0x25 1x15"}, False),
    ("AiprodAttemptsAreLost", {'aiprod_lease_losses_total{reason="expired",dispatcher="a"}': "5x25 7x15"}, False),
    ("AiprodAttemptsAreLost", {'aiprod_lease_losses_total{reason="expired",dispatcher="a"}': "5x25 8x15"}, True),
    ("AiprodJobsArePutBack", {f'aiprod_attempts_total{{family="m",outcome="put_back",{DISPATCHER}}}': "0x25 5x15"}, False),
    ("AiprodJobsArePutBack", {f'aiprod_attempts_total{{family="m",outcome="put_back",{DISPATCHER}}}': "7x25 17x15"}, False),
    ("AiprodJobsArePutBack", {f'aiprod_attempts_total{{family="m",outcome="put_back",{DISPATCHER}}}': "7x25 18x15"}, True),
    ("AiprodJobsArePutBack", {f'aiprod_attempts_total{{family="m",outcome="put_back",{DISPATCHER}}}': "0+2x40"}, True),
    (
        "AiprodStageHasNoReplica",
        {
            'aiprod_stage_replicas{family="m",stage="denoiser"}': "0x40",
            'aiprod_stage_jobs{family="m",stage="denoiser",state="queued"}': "0x40",
        },
        False,
    ),
    (
        "AiprodStageHasNoReplica",
        {
            'aiprod_stage_replicas{family="m",stage="denoiser"}': "0x40",
            'aiprod_stage_jobs{family="m",stage="denoiser",state="queued"}': "0x20 2x20",
        },
        True,
    ),
    ("AiprodStageIsTheBottleneck", {WAIT % "60.0": "0+95x40", WAIT % "120.0": "0+100x40", WAIT % "+Inf": "0+100x40"}, False),
    ("AiprodStageIsTheBottleneck", {WAIT % "60.0": "0+80x40", WAIT % "120.0": "0+100x40", WAIT % "+Inf": "0+100x40"}, True),
    ("AiprodWebhooksGivenUp", {'aiprod_webhook_deliveries_total{result="put_off",dispatcher="a"}': "0+1x40"}, False),
    ("AiprodWebhooksGivenUp", {'aiprod_webhook_deliveries_total{result="given_up",dispatcher="a"}': "0x20 1x20"}, True),
    ("AiprodWebhooksPileUp", {'aiprod_webhooks{state="waiting"}': "0+4x40", 'aiprod_webhooks{state="given_up"}': "500x40"}, False),
    ("AiprodWebhooksPileUp", {'aiprod_webhooks{state="waiting"}': "0+10x40"}, True),
    ("AiprodKeptStepsOverflow", {"aiprod_kept_bytes": "2500000000x80", "aiprod_kept_limit_bytes": "2000000000x80"}, False),
    ("AiprodKeptStepsOverflow", {"aiprod_kept_bytes": "4100000000x80", "aiprod_kept_limit_bytes": "2000000000x80"}, True),
]


def test_each_alert_is_tried_both_ways() -> None:
    assert {(alert.name, fires) for alert in ALERTS for fires in (False, True)} == {(name, fires) for name, _, fires in CASES}


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    tests = [_case(*case) for case in CASES]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(tmp_path / "tests.yaml"))


def _case(name: str, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """promtool compares labels and annotations exactly; whether something fires, ALERTS itself says."""
    every = [{"series": each, "values": values} for each, values in series.items()]
    count = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    return {
        "interval": "1m",
        "input_series": every,
        "promql_expr_test": [{"expr": count, "eval_time": "36m17s", "exp_samples": [{"labels": "{}", "value": int(fires)}]}],
    }
