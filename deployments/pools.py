"""Serve's record of the deployments, the cluster's nodes -> replicas that have no node, and what they wait for

Serve's own message for it comes after half a minute and is silent about labels.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

# What `serve.status()` is made of; with labels and nodes it has no public name.
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]

PATIENCE_SECONDS = 30.0  # in which a replica is up where there is room; until it is, Serve does not know its node
NAMES = {"num_cpus": "CPU", "num_gpus": "GPU"}  # options -> resources


def unplaced_now() -> dict[str, str]:
    """FAMILY.STAGE -> why it has no node. Asks the controller and Ray's head, so not in an event loop."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return {} if client is None else dict(unplaced(client.get_serve_details()["applications"], ray.nodes(), now=time.time()))


def unplaced(applications: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], *, now: float) -> Iterator[tuple[str, str]]:
    """Of the applications as Serve describes them."""
    alive = [node for node in nodes if node["Alive"]]
    for application, told in applications.items():
        for name, deployment in told["deployments"].items():
            waits = [
                now - each["start_time_s"] for each in deployment["replicas"] if each["state"] == "STARTING" and not each.get("node_id")
            ]
            options = deployment["deployment_config"].get("ray_actor_options") or {}
            if waits and (lack := _lack(options, alive, seconds=max(waits))):
                yield f"{application}.{name}", f"{len(waits)} without a node: {lack}"


def _lack(options: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], *, seconds: float) -> str | None:
    labels = options.get("label_selector") or {}
    pool = ", ".join(f"{key}={value}" for key, value in labels.items())
    there = [node for node in nodes if all(matches(node["Labels"].get(key), said) for key, said in labels.items())]
    if not there:
        return f"no node of the cluster has the label {pool}; start one with `ray start --labels {pool}`"
    wanted = {resource: options[option] for option, resource in NAMES.items() if options.get(option)} | (options.get("resources") or {})
    if not any(all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items()) for node in there):
        return f"no node{pool and f' with {pool}'} has {', '.join(f'{name}: {amount:g}' for name, amount in wanted.items())}"
    if seconds > PATIENCE_SECONDS:
        return (
            f"nodes{pool and f' with {pool}'} are full, or it is slow to start ({seconds:.0f} s until now); add one, or lower max_replicas"
        )
    return None


def matches(value: str | None, said: str) -> bool:
    """Whether a node's label is as a selector says: `a`, `!a`, `in(a,b)` or `!in(a,b)`."""
    bare = said.removeprefix("!")
    wanted = bare[3:-1].split(",") if bare.startswith("in(") else [bare]
    return (value in [each.strip() for each in wanted]) is (bare == said)
