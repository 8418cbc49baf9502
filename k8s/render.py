"""an overlay's serve_config.yaml and pools.yaml, and base/worker.yaml -> its worker groups, its Serve config and its disruption budgets

python -m k8s.render [OVERLAY …]     # all of them, unless some are named

An overlay says what differs: which stages run where (serve_config.yaml) and what a pod of each pool has (pools.yaml). What this writes
beside them, rayservice.yaml and disruption.yaml, is what kustomize takes; a test holds it equal to what would be written now.
"""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent
OVERLAYS = FOLDER / "overlays"
WRITTEN = "# Written by `python -m k8s.render` from serve_config.yaml, pools.yaml and ../../base/worker.yaml; change those.\n"
POOL = "aiprod-pool"  # the label of Ray nodes and of pods that stages are pinned by
TAINTS = ("nvidia.com/gpu", POOL)  # nodes with cards may be kept for those who need cards, or for one pool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretKey(_Strict):
    """An environment variable whose value is in the Secret `aiprod` under the same name."""

    name: str
    optional: bool = False

    def env(self) -> dict[str, Any]:
        reference = {"name": "aiprod", "key": self.name, **({"optional": True} if self.optional else {})}
        return {"name": self.name, "valueFrom": {"secretKeyRef": reference}}


BUCKET_KEYS = (SecretKey(name="AWS_ACCESS_KEY_ID", optional=True), SecretKey(name="AWS_SECRET_ACCESS_KEY", optional=True))
WATERMARK_KEY = SecretKey(name="AIPROD_WATERMARK_KEY", optional=True)
API_KEYS = (SecretKey(name="PGPASSWORD"), SecretKey(name="AIPROD_PEPPER"))


class Pool(_Strict):
    """A worker group: pods of one kind.

    `min` and `max` pods, each with `cpus`, `memory` and `gpus` of the nodes that `node_selector` names. One that is idle for
    `idle_seconds` is taken away. `api` is the pool where ingress and dispatcher run: it alone has the database's password.
    """

    name: str = Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")
    min: int = Field(ge=0)
    max: int = Field(ge=1)
    cpus: int = Field(ge=1)
    memory: str = Field(pattern=r"^\d+Gi$")
    gpus: int = Field(default=0, ge=0)
    node_selector: dict[str, str] = {}
    idle_seconds: int = Field(default=300, ge=1)
    api: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Pool":
        if self.min > self.max:
            raise ValueError(f"pool {self.name} has min {self.min} above max {self.max}; raise max")
        return self


class Pools(_Strict):
    """pools.yaml: the pools of a cluster, and the claim of the volume that is /models on all pods, if there is one."""

    pools: list[Pool] = Field(min_length=1)
    models: str | None = None


def load_pools(overlay: Path) -> Pools:
    return Pools.model_validate(yaml.safe_load((overlay / "pools.yaml").read_text(encoding="utf-8")))


def worker_group(pool: Pool, *, models: str | None) -> dict[str, Any]:
    """The pool as KubeRay takes it."""
    return {
        "groupName": pool.name,
        "replicas": pool.min,
        "minReplicas": pool.min,
        "maxReplicas": pool.max,
        "idleTimeoutSeconds": pool.idle_seconds,
        "labels": {POOL: pool.name},
        "rayStartParams": {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365"},
        "template": _pod(pool, models=models),
    }


def _pod(pool: Pool, *, models: str | None) -> dict[str, Any]:
    pod = copy.deepcopy(yaml.safe_load((FOLDER / "base/worker.yaml").read_text(encoding="utf-8")))
    pod["metadata"]["labels"] |= {POOL: pool.name} | ({"aiprod-api": "yes"} if pool.api else {})
    (container,) = pod["spec"]["containers"]
    container["env"] = [key.env() for key in (*(API_KEYS if pool.api else ()), *BUCKET_KEYS, WATERMARK_KEY)]
    container["resources"] = _resources(pool)
    if pool.node_selector:
        pod["spec"]["nodeSelector"] = pool.node_selector
    if pool.gpus:
        pod["spec"]["tolerations"] = [{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]
    pod["spec"].setdefault("tolerations", []).append({"key": TAINTS[1], "operator": "Equal", "value": pool.name, "effect": "NoSchedule"})
    if models is not None:
        container["volumeMounts"].append(MODELS_MOUNT)
        pod["spec"]["volumes"].append(models_volume(models))
    return pod


MODELS_MOUNT = {"name": "models", "mountPath": "/models", "readOnly": True}


def models_volume(claim: str) -> dict[str, Any]:
    return {"name": "models", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def _resources(pool: Pool) -> dict[str, Any]:
    """Asked for and allowed alike: Ray counts what is allowed, and a pod that is promised what it uses is not evicted for it."""
    amounts = {"cpu": str(pool.cpus), "memory": pool.memory} | ({"nvidia.com/gpu": str(pool.gpus)} if pool.gpus else {})
    return {"requests": amounts, "limits": dict(amounts)}


def rayservice(overlay: Path) -> dict[str, Any]:
    """The patch of base/rayservice.yaml."""
    pools = load_pools(overlay)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "aiprod"},
        "spec": {
            "serveConfigV2": (overlay / "serve_config.yaml").read_text(encoding="utf-8"),
            "rayClusterConfig": {"workerGroupSpecs": [worker_group(pool, models=pools.models) for pool in pools.pools]},
        },
    }


def disruption_budgets(overlay: Path) -> Iterator[dict[str, Any]]:
    """The head, and the pods that a pool has at least, are not evicted. KubeRay's pods have no scale, so only whole numbers work."""
    kept = {"head": 1} | {pool.name: pool.min for pool in load_pools(overlay).pools if pool.min}
    for name, count in kept.items():
        yield {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": f"aiprod-{name}", "labels": {"app.kubernetes.io/part-of": "aiprod"}},
            "spec": {"minAvailable": count, "selector": {"matchLabels": {"app.kubernetes.io/part-of": "aiprod", POOL: name}}},
        }


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that the Serve config reads as it is written; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def rendered(overlay: Path) -> dict[str, str]:
    """File name -> its text."""
    documents = {"rayservice.yaml": [rayservice(overlay)], "disruption.yaml": list(disruption_budgets(overlay))}
    return {name: WRITTEN + yaml.dump_all(each, Dumper=_Dumper, sort_keys=False, width=140) for name, each in documents.items()}


def main(names: list[str]) -> None:
    for overlay in [OVERLAYS / name for name in names] or sorted(OVERLAYS.iterdir()):
        for name, text in rendered(overlay).items():
            (overlay / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
