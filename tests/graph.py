"""serve_config.yaml, at another port and with a second denoiser -> a cluster of this session's own"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aiprod_client.server import free_port
from tests.collector import Collector, collecting, sent_to

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "serve_config.yaml"
THREADS = 1  # the same everywhere: a sum in another order is another video
PATIENCE = float(os.environ.get("AIPROD_TEST_PATIENCE", "400"))  # seconds, for the cluster to get ready
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",  # a token file in the home folder would switch it on
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # in spite of its name: all addresses on loopback
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # 5 by default, which a busy machine needs for imports alone
    "RAY_USAGE_STATS_ENABLED": "0",
}
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Graph:
    """The running graph."""

    url: str
    grpc_port: int
    seconds_to_ready: float
    data: Path
    session: Path  # Ray's own folder, in which it writes logs
    collector: Collector | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])  # as it was deployed

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)


@pytest.fixture(scope="session")
def graph() -> Iterator[Graph]:
    """One cluster for the whole session: it takes half a minute to start."""
    with ExitStack() as stack:
        folder, collector = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(collecting())
        running = stack.enter_context(running_graph(_test_config(Path(folder)), environment=sent_to(collector)))
        yield replace(running, collector=collector)


@contextmanager
def running_graph(config: dict[str, Any], *, data: Path | None = None, environment: Mapping[str, str] = NOTHING) -> Iterator[Graph]:
    """A graph by this config in a cluster of its own; what it keeps, it keeps in `data`."""
    import ray
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        kept = data or Path(folder) / "data"
        for name, value in (ENVIRONMENT | {"AIPROD_DATA": str(kept), **environment}).items():
            patch.setenv(name, value)
        options: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder, "namespace": "serve", "log_to_driver": False}
        ray.init(address="local", num_cpus=3, include_dashboard=False, object_store_memory=800_000_000, **options)
        try:
            start = time.monotonic()
            with suppress(TimeoutError):  # Serve waits a minute for its proxy and goes on starting it; whether all is ready is asked below
                serve.start(proxy_location="HeadOnly", http_options=config["http_options"], grpc_options=config["grpc_options"])
            # As `serve run` does it.
            serve_client().deploy_apps(ServeDeploySchema.model_validate(config))
            url = f"http://127.0.0.1:{config['http_options']['port']}"
            _wait_until_ready(url, {application["name"] for application in config["applications"]})
            session = Path(folder) / "session_latest"
            yield Graph(url, config["grpc_options"]["port"], time.monotonic() - start, kept, session, config=config)
        finally:
            serve.shutdown()
            ray.shutdown()


def serve_client() -> Any:
    """What Serve's own command line talks through; it has no public name."""
    from ray.serve.context import _get_global_client

    return _get_global_client()


def graph_config() -> dict[str, Any]:
    """The product's own, at ports of its own and with one thread everywhere."""
    from deployments.settings import check_config

    config = check_config(CONFIG)
    config["http_options"]["port"] = free_port()
    config["grpc_options"]["port"] = free_port()
    for application in config["applications"]:
        for deployment in application["deployments"]:
            if "threads" in deployment.get("user_config", {}):
                deployment["user_config"]["threads"] = THREADS
    return config


def deployment_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A deployment of a config, to be changed."""
    return next(d for application in config["applications"] for d in application["deployments"] if d["name"] == name)


def _test_config(folder: Path) -> dict[str, Any]:
    """Two denoisers, a LoRA whose videos fail, webhooks to this machine, logs as JSON, and health checks that notice soon."""
    config = graph_config()
    config["logging_config"] = {"encoding": "JSON", "additional_log_standard_attrs": ["name"]}
    loras = write_overflowing_lora(folder)
    families, api = config["applications"]
    families["args"]["loras"] = api["args"]["families"][0]["loras"] = str(loras)
    api["args"]["outgoing"] = {"enabled": True, "allow_networks": ["127.0.0.0/8"]}
    deployment_of(config, "denoiser")["num_replicas"] = 2
    return config


def write_overflowing_lora(folder: Path) -> Path:
    """The shipped LoRA of few steps with factors so large, though finite, that nothing it is used in comes to an end."""
    shipped = ROOT / "aiprod_components/miniature/weights/loras/distilled"
    factors = {name: tensor.float() * 1e18 for name, tensor in load_file(shipped.with_suffix(".safetensors")).items()}
    with safe_open(shipped.with_suffix(".safetensors"), "pt") as file:
        metadata = file.metadata()
    save_file(factors, folder / "overflow.safetensors", metadata=metadata)
    return folder


def _wait_until_ready(url: str, applications: set[str]) -> None:
    """Of a family that is offered and not deployed nobody waits for the stages."""
    deadline, last = time.monotonic() + PATIENCE, "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}/readyz", trust_env=False, timeout=30)
            if answer.status_code in (200, 503) and {answer.json()["applications"].get(name) for name in applications} == {"RUNNING"}:
                return
            last = answer.text
        except (httpx.HTTPError, ValueError, KeyError) as error:
            last = repr(error)
        time.sleep(0.5)
    raise TimeoutError(f"the graph was not ready after {PATIENCE:.0f} s: {last}")
