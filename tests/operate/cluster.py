"""a config -> the graph on several raylets of this machine, each with a label and GPUs that are only counted; held by another process

That process holds the raylets and asks Ray; this one asks the API, and looks on.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.graph import ENVIRONMENT, PATIENCE, graph_config, serve_client
from tests.held import Ask, Held, held

LABEL = "aiprod-pool"
# Pool -> its GPUs, which Ray counts and torch does not see.
POOLS = {"small": 1, "denoise": 3, "refine": 2}  # the first has the API too
# Stage -> its pool, its share of a GPU, and how many there may be.
STAGES: dict[str, tuple[str, float, int]] = {
    "text_encoder": ("small", 0.2, 1),
    "vae_encoder": ("small", 0.2, 1),
    "denoiser": ("denoise", 1, 3),
    "upsampler": ("small", 0.2, 1),
    "refiner": ("refine", 1, 2),
    "vae_decoder": ("small", 0.2, 2),
}
DELAYS = {"upscale_delay_s": 0, "downscale_delay_s": 0, "downscale_to_zero_delay_s": 5, "look_back_period_s": 2, "metrics_interval_s": 0.5}
POLICY = {
    "policy_function": "deployments.autoscaling:WorkPolicy",
    "policy_kwargs": {"horizon_seconds": 8, "smoothing_seconds": 1, "stale_seconds": 3},
}
SLOTS = 10


def pooled_config() -> dict[str, Any]:
    """The product's own: every stage in its pool, none at first, scaled by our policy."""
    config = graph_config()
    miniature, api = config["applications"]
    miniature["autoscaling_policy"] = POLICY
    for deployment in miniature["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.01, "label_selector": {LABEL: "small"}}
        if deployment["name"] in STAGES:
            pool, share, most = STAGES[deployment["name"]]
            del deployment["num_replicas"]
            deployment["autoscaling_config"] = {"min_replicas": 0, "max_replicas": most, "target_ongoing_requests": 1, **DELAYS}
            deployment["ray_actor_options"] = {"num_cpus": 0.01, "num_gpus": share, "label_selector": {LABEL: pool}}
    for deployment in api["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.01, "label_selector": {LABEL: "small"}}
        if deployment["name"] == "dispatcher":
            deployment["user_config"]["slots"] = SLOTS
            deployment["health_check_timeout_s"] = 3 * PATIENCE  # a test stops its process, which Serve is not to replace
    return config


@dataclass(frozen=True)
class Sample:
    """A look at the stages: the replicas of each by Serve's state of them, which end, on which nodes they run, how many are aimed at."""

    at: float
    states: Mapping[str, Counter[str]]
    stopping: Mapping[str, set[str]]
    nodes: Mapping[str, set[str]]
    targets: Mapping[str, int]

    def running(self, stage: str) -> int:
        return self.states[stage]["RUNNING"]


@dataclass
class PooledCluster:
    """The graph on raylets, from outside."""

    url: str
    ask: Ask

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    def deployments(self, application: str = "miniature") -> dict[str, Any]:
        return self.ask("details")[application]["deployments"]

    def sample(self) -> Sample:
        stages = {name: told for name, told in self.deployments().items() if name in STAGES}
        states = {name: Counter(each["state"] for each in told["replicas"]) for name, told in stages.items()}
        ends = {name: {each["replica_id"] for each in told["replicas"] if each["state"] == "STOPPING"} for name, told in stages.items()}
        nodes = {name: {each["node_id"] for each in told["replicas"] if each["state"] == "RUNNING"} for name, told in stages.items()}
        return Sample(time.monotonic(), states, ends, nodes, {name: told["target_num_replicas"] for name, told in stages.items()})

    def wait_until(self, holds: Callable[[Sample], bool]) -> Sample:
        deadline = time.monotonic() + PATIENCE
        while not holds(sample := self.sample()):
            assert time.monotonic() < deadline, (sample.targets, sample.states)
            time.sleep(0.2)
        return sample

    @contextmanager
    def watched(self) -> Iterator[list[Sample]]:
        """A sample four times a second, while the block runs."""
        samples, over = [self.sample()], threading.Event()

        def watch() -> None:
            while not over.wait(0.25):
                samples.append(self.sample())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield samples
        finally:
            over.set()
            thread.join()


@contextmanager
def pooled_cluster(config: dict[str, Any], *, pools: Mapping[str, int], data: Path) -> Iterator[PooledCluster]:
    """Raises RuntimeError when it does not get ready."""
    with held(_pooled, config, dict(pools), data) as (url, ask):
        yield PooledCluster(url, ask)


@contextmanager
def _pooled(config: dict[str, Any], pools: Mapping[str, int], data: Path) -> Iterator[Held]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(ENVIRONMENT, AIPROD_DATA=str(data), RAY_TMPDIR=folder)  # not where others look for a cluster
        with _raylets(config, pools) as actions:
            yield f"http://127.0.0.1:{config['http_options']['port']}", actions


@contextmanager
def _raylets(config: dict[str, Any], pools: Mapping[str, int]) -> Iterator[dict[str, Callable[..., Any]]]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from ray.serve.schema import ServeDeploySchema

    raylets, calls = Cluster(shutdown_at_exit=True), list[Any]()

    def add(pool: str, gpus: int) -> None:
        more: dict[str, Any] = {"include_dashboard": False, "dashboard_agent_listen_port": None, "node_ip_address": "127.0.0.1"}
        raylets.add_node(num_cpus=1, num_gpus=gpus, labels={LABEL: pool}, object_store_memory=100_000_000, **more)

    try:
        for pool, gpus in pools.items():
            add(pool, gpus)
        ray.init(address=raylets.address, namespace="serve", log_to_driver=False)
        with suppress(TimeoutError):  # as in tests/graph.py
            serve.start(proxy_location="HeadOnly", http_options=config["http_options"], grpc_options=config["grpc_options"])
        serve_client().deploy_apps(ServeDeploySchema.model_validate(config))
        yield {
            "add": add,
            "details": lambda: _plain(serve_client().get_serve_details()["applications"]),
            "call": lambda body, count: calls.extend(_call_family(body, count)),
            "cancel": lambda: [call.cancel() for call in calls] and None,
            "labels": lambda: {node["NodeID"]: node["Labels"].get(LABEL) for node in ray.nodes() if node["Alive"]},
        }
    finally:
        ray.shutdown()  # and not Serve first, in order: nobody will need it again
        raylets.shutdown()


def _call_family(body: Mapping[str, Any], count: int) -> list[Any]:
    """So many plans given to the family by its handle, of which no dispatcher knows."""
    from ray import serve

    from aiprod_components.families import make_family
    from deployments.api.wire import Wire
    from deployments.capacity.graph import plan_of

    plan = plan_of(dict(body), wire=Wire({"miniature": make_family("miniature")}))
    family = serve.get_app_handle("miniature")
    return [family.run.remote(plan) for _ in range(count)]


def _plain(applications: Mapping[str, Any]) -> dict[str, Any]:
    """Of Serve's record what the tests look at, in types that every process knows."""
    return {
        name: {
            "status": str(told["status"]),
            "deployments": {
                deployment: {
                    "target_num_replicas": each["target_num_replicas"],
                    "replicas": [
                        {
                            "state": str(replica["state"]).rpartition(".")[2],
                            **{key: replica.get(key) for key in ("replica_id", "node_id", "pid")},
                        }
                        for replica in each["replicas"]
                    ],
                }
                for deployment, each in told["deployments"].items()
            },
        }
        for name, told in applications.items()
    }
