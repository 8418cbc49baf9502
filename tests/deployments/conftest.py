"""serve_config.yaml, at another port and with a second denoiser -> a cluster of this session's own"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiprod_client.server import free_port

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serve_config.yaml"
THREADS = 1  # the same everywhere: a sum in another order is another video
PATIENCE = float(os.environ.get("AIPROD_TEST_PATIENCE", "240"))  # seconds, for the cluster to get ready
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",  # a token file in the home folder would switch it on
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # in spite of its name: all addresses on loopback
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # 5 by default, which a busy machine needs for imports alone
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Graph:
    """The running graph."""

    url: str
    seconds_to_ready: float

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)


@pytest.fixture(scope="session")
def graph() -> Iterator[Graph]:
    import ray
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        config = _test_config(port=free_port())
        options: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder, "namespace": "serve", "log_to_driver": False}
        ray.init(address="local", num_cpus=3, include_dashboard=False, object_store_memory=800_000_000, **options)
        try:
            start = time.monotonic()
            with suppress(TimeoutError):  # Serve waits a minute for its proxy and goes on starting it; whether all is ready is asked below
                serve.start(proxy_location="HeadOnly", http_options=config["http_options"])
            # As `serve run` does it.
            serve_client().deploy_apps(ServeDeploySchema.model_validate(config))
            url = f"http://127.0.0.1:{config['http_options']['port']}"
            _wait_until_ready(url)
            yield Graph(url, time.monotonic() - start)
        finally:
            serve.shutdown()
            ray.shutdown()


def serve_client() -> Any:
    """What Serve's own command line talks through; it has no public name."""
    from ray.serve.context import _get_global_client

    return _get_global_client()


def _test_config(*, port: int) -> dict[str, Any]:
    from deployments.settings import check_config

    config = check_config(CONFIG)
    config["http_options"]["port"] = port
    for deployment in config["applications"][0]["deployments"]:
        if deployment["name"] == "denoiser":
            deployment["num_replicas"] = 2
        if "user_config" in deployment:
            deployment["user_config"]["threads"] = THREADS
    return config


def _wait_until_ready(url: str) -> None:
    deadline, last = time.monotonic() + PATIENCE, "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}/readyz", trust_env=False, timeout=30)
            if answer.status_code == 200:
                return
            last = answer.text
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.5)
    raise TimeoutError(f"the graph was not ready after {PATIENCE:.0f} s: {last}")
