"""manifests -> names in them of which nothing is there: labels, ports, claims, secrets, variables, pools"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ray.serve._private import constants as serve_constants

from k8s.render import POOL
from tests.k8s.manifests import Document, cluster, deployments, groups, of_kind, pod_templates

# What is in the Secret `aiprod`, by docs/kubernetes.md.
SECRET_KEYS = {"PGPASSWORD", "AIPROD_PEPPER", "REDIS_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AIPROD_WATERMARK_KEY"}
VARIABLES = {
    *SECRET_KEYS,
    *("PGHOST", "PGUSER", "PGDATABASE", "PGSSLMODE", "PGDATA", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
    *("HOME", "AIPROD_DATA", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "RAY_USAGE_STATS_ENABLED", "RAY_LOG_TO_STDERR"),
    *("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
}
# Pods and namespaces that others bring.
ELSEWHERE = (
    {"k8s-app": "kube-dns"},
    {"app.kubernetes.io/name": "kuberay-operator"},
    {"kubernetes.io/metadata.name": "kube-system"},
    {"kubernetes.io/metadata.name": "kuberay-system"},
    {"kubernetes.io/metadata.name": "monitoring"},
)
LABELS = {
    *("app.kubernetes.io/part-of", "app.kubernetes.io/component", "app.kubernetes.io/name", POOL, "aiprod-api"),
    *("pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"),
}
AMOUNTS = {"cpu": r"\d+m?", "memory": r"\d+[MG]i", "storage": r"\d+Gi", "nvidia.com/gpu": r"\d+"}
NODE_LABELS = {"nvidia.com/gpu.product"}
TAINTS = {"nvidia.com/gpu", POOL}
SERVE = inspect.getsource(serve_constants)


def reference_faults(documents: list[Document]) -> Iterator[str]:
    """Every name of something that is not there."""
    pods = pod_templates(documents)
    yield from _selectors(documents, pods)
    for name, pod in pods.items():
        yield from (f"{name}: {fault}" for fault in _pod_faults(pod["spec"], documents))
    yield from _stage_faults(documents)
    options = cluster(documents)["autoscalerOptions"]
    volumes = {volume.get("name") for volume in pods["head"]["spec"]["volumes"]}
    yield from (f"autoscaler: {mount['name']} is no volume" for mount in options["volumeMounts"] if mount["name"] not in volumes)
    password = cluster(documents)["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    yield from _secret_faults(password, at="redisPassword")
    for document in documents:
        for key, found in _maps(document):
            if key == "labels":
                yield from (f"{name} is no label of ours" for name in found if name not in LABELS)
            elif key in ("requests", "limits"):
                yield from (f"{name}: {each!r} is no amount" for name, each in found.items() if not _is_amount(name, each))


def _is_amount(name: str, amount: Any) -> bool:
    return name in AMOUNTS and re.fullmatch(AMOUNTS[name], str(amount)) is not None


def _maps(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(value, dict):
            yield str(key), value
        yield from _maps(value)


def _selectors(documents: list[Document], pods: Mapping[str, Document]) -> Iterator[str]:
    for document in documents:
        if document["kind"] == "RayService":
            continue
        for labels in _label_sets(document.get("spec", {})):
            if labels and labels not in ELSEWHERE and not any(labels.items() <= pod["metadata"]["labels"].items() for pod in pods.values()):
                yield f"{document['kind']}/{document['metadata']['name']}: no pod has {labels}"
    for monitor in of_kind(documents, "PodMonitor"):
        chosen = [pod for pod in pods.values() if monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if not all(endpoint["port"] in _ports(pod["spec"]) for pod in chosen):
                yield f"PodMonitor/{monitor['metadata']['name']}: a pod has no port {endpoint['port']}"


def _label_sets(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "matchLabels" or (key == "selector" and "matchLabels" not in value):
                yield value
            else:
                yield from _label_sets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _label_sets(value)


def _ports(pod: Mapping[str, Any]) -> dict[str, int]:
    return {port.get("name", ""): port["containerPort"] for container in pod["containers"] for port in container.get("ports", ())}


def _pod_faults(pod: Mapping[str, Any], documents: list[Document]) -> Iterator[str]:
    volumes = {volume.get("name"): volume for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in of_kind(documents, "PersistentVolumeClaim")}
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(documents, "ConfigMap")}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield f"there is no claim {claim}"
    for container in pod["containers"]:
        yield from (f"{mount['name']} is no volume" for mount in container.get("volumeMounts", ()) if mount["name"] not in volumes)
        for source in container.get("envFrom", ()):
            if source["configMapRef"]["name"] not in maps:
                yield f"there is no ConfigMap {source['configMapRef']['name']}"
        for variable in container.get("env", ()):
            if variable["name"] not in VARIABLES:
                yield f"nothing reads ${variable['name']}"
            if "valueFrom" in variable:
                yield from _secret_faults(variable["valueFrom"]["secretKeyRef"], at=variable["name"])
    yield from (f"nothing reads ${name}" for data in maps.values() for name in data if not _is_read(name))
    yield from (f"no node has a label {label}" for label in pod.get("nodeSelector", {}) if label not in NODE_LABELS)
    yield from (f"no node has a taint {each['key']}" for each in pod.get("tolerations", ()) if each["key"] not in TAINTS)


def _is_read(name: str) -> bool:
    return name in VARIABLES or f'"{name}"' in SERVE


def _secret_faults(reference: Mapping[str, Any], *, at: str) -> Iterator[str]:
    if reference["name"] != "aiprod" or reference["key"] not in SECRET_KEYS:
        yield f"{at}: {reference} is not in the Secret aiprod"


def _stage_faults(documents: list[Document]) -> Iterator[str]:
    """What a stage is pinned to is a pool's label, and a pool's label is its name."""
    labels = [group["labels"] for group in groups(documents).values()]
    for stage in deployments(documents):
        pinned = stage["ray_actor_options"].get("label_selector") or {}
        if not pinned or not any(pinned.items() <= each.items() for each in labels):
            yield f"{stage['name']}: no pool has {pinned}"
    for name, group in groups(documents).items():
        pod = group["template"]["metadata"]["labels"]
        if group["labels"] != {POOL: name} or pod.get(POOL) != name or not re.fullmatch(r"[a-z0-9-]+", name):
            yield f"{name}: labels are {group['labels']}, of its pods {pod}"
