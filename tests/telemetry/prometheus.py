"""targets and rules -> Debian's Prometheus on this machine -> what it has read, and which alerts fire"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from aiprod_client.server import free_port

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not installed")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not installed")


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector: `metric` and `value` of each."""
        return self._ask("query", {"query": expression})["result"]

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"}

    def targets(self) -> dict[str, str]:
        """Each job's health: up, down or unknown."""
        return {target["labels"]["job"]: target["health"] for target in self._ask("targets")["activeTargets"]}

    def wait(self, until: Callable[["Prometheus"], object], *, seconds: float = 60) -> bool:
        deadline = time.monotonic() + seconds
        while not (happened := bool(until(self))) and time.monotonic() < deadline:
            time.sleep(0.2)
        return happened

    def _ask(self, what: str, parameters: Mapping[str, str] | None = None) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def reading(folder: Path, targets: Mapping[str, str], *, rules: Sequence[dict[str, Any]] = (), every: str = "1s") -> Iterator[Prometheus]:
    """Reads HOST:PORT/metrics of each target (by its job's name) every so often, and evaluates the rules once a second."""
    scrapes = [{"job_name": name, "static_configs": [{"targets": [place]}]} for name, place in targets.items()]
    config = {"global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"}, "scrape_configs": scrapes}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "tried", "rules": list(rules)}]}))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({**config, "rule_files": ["rules.yaml"]}))
    place = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={place}"]
    process = subprocess.Popen(["prometheus", "--log.level=error", *options])
    try:
        prometheus = Prometheus(f"http://{place}")
        deadline = time.monotonic() + 60
        while not _is_ready(prometheus.url):
            assert process.poll() is None and time.monotonic() < deadline, "Prometheus does not start"
            time.sleep(0.1)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
