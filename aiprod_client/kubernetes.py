"""manifests -> a Kubernetes cluster; the graph there -> its conditions, applications, pools, pods and logs

Needs the extra `k8s`, and whoever kubectl would be here: the current context of the kubeconfig, or the pod's own account.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aiprod_components.errors import InvalidRequestError

MANAGER = "aiprod"  # whose fields they are, for the API server
POOL, CLUSTER, GROUP = "aiprod-pool", "ray.io/cluster", "ray.io/group"
RAY_SERVICE, RAY_CLUSTER = ("ray.io/v1", "RayService"), ("ray.io/v1", "RayCluster")
LAST = "RayService"  # everything else is there before it starts pods
INSTALL = {
    "ray.io": "install KubeRay 1.7: helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 (docs/kubernetes.md)",
    "monitoring.coreos.com": "install Prometheus' operator, or leave out components/monitoring",
}

Manifest = dict[str, Any]


class KubernetesError(RuntimeError):
    """What the cluster said, and the way out."""


@dataclass(frozen=True)
class Applied:
    """An object, and what applying it did: created, changed or unchanged."""

    kind: str
    name: str
    change: str


@dataclass(frozen=True)
class Pod:
    """A pod of the graph; `pool` is its worker group, or head."""

    name: str
    pool: str
    cluster: str
    phase: str
    is_ready: bool
    restarts: int
    node: str | None
    waits_for: str | None


@dataclass(frozen=True)
class Group:
    """A worker group of the cluster that serves: pods that are ready, that are meant to be, and the bounds."""

    name: str
    ready: int
    desired: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Status:
    """The RayService as KubeRay describes it: conditions by type, applications and their deployments by name, pools and pods."""

    conditions: dict[str, str]
    messages: dict[str, str]
    applications: dict[str, dict[str, Any]]
    groups: list[Group]
    pods: list[Pod]
    is_upgrading: bool

    @property
    def is_ready(self) -> bool:
        return self.conditions.get("Ready") == "True"


def manifests_of(source: str) -> list[Manifest]:
    """Those of a folder that kustomize builds, of a file, or of stdin (`-`). Raises InvalidRequestError."""
    if source == "-":
        text = sys.stdin.read()
    elif Path(source).is_dir():
        text = _kustomized(Path(source))
    elif Path(source).is_file():
        text = Path(source).read_text(encoding="utf-8")
    else:
        raise InvalidRequestError(f"{source} is neither a folder nor a file; name an overlay, such as k8s/overlays/kind", field="source")
    try:
        found = [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError as error:
        raise InvalidRequestError(f"{source} is not YAML: {error}", field="source") from error
    if wrong := [each for each in found if not isinstance(each, dict) or not {"apiVersion", "kind", "metadata"} <= each.keys()]:
        raise InvalidRequestError(f"{source} has {str(wrong[0])[:80]!r}, which is no Kubernetes object", field="source")
    return sorted(found, key=lambda each: (each["kind"] != "Namespace", each["kind"] == LAST))


def _kustomized(folder: Path) -> str:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
            if built.returncode:
                raise InvalidRequestError(f"{folder} cannot be built: {built.stderr.strip()}", field="source")
            return built.stdout
    raise KubernetesError(f"{folder} is built by kustomize, which is not installed; install kubectl, or pipe manifests into `-`")


class Kubernetes:
    """A cluster's API."""

    def __init__(self, api: Any) -> None:
        """`api` is the kubernetes package's ApiClient."""
        from kubernetes import client, dynamic

        self._core = client.CoreV1Api(api)
        # The list of what the cluster knows is kept in a file of its own, not in one that anybody else could have put there.
        with tempfile.TemporaryDirectory() as folder, _said("the cluster cannot be asked what it knows"):
            self._dynamic = dynamic.DynamicClient(api, cache_file=str(Path(folder) / "known.json"))

    def apply(self, manifest: Manifest, *, namespace: str, force: bool = False, dry_run: bool = False) -> Applied:
        """Into `namespace` what names none. Raises KubernetesError.

        Server-side: the client's way keeps a copy in an annotation, for which KubeRay's objects are too large.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        resource, namespace = self._resource(manifest["apiVersion"], kind), manifest["metadata"].get("namespace", namespace)
        before = self._version(resource, name, namespace)
        with _said(f"{kind}/{name} is refused"):
            after = self._dynamic.server_side_apply(
                resource,
                body=manifest,
                namespace=namespace,
                field_manager=MANAGER,
                force_conflicts=force,
                **({"dry_run": "All"} if dry_run else {}),
            )
        change = "created" if before is None else "unchanged" if after.metadata.resourceVersion == before else "changed"
        return Applied(kind, name, change)

    def missing_secrets(self, manifests: list[Manifest], *, namespace: str) -> dict[str, list[str]]:
        """Secret -> keys that pods cannot start without and that it does not have. One that may not be read is taken to have them."""
        missing: dict[str, list[str]] = {}
        for (place, name), keys in _needed_secrets(manifests, namespace).items():
            found = self._secret_keys(place, name)
            if found is not None and (lacking := sorted(keys - found)):
                missing[name] = lacking
        return missing

    def status(self, name: str, namespace: str) -> Status:
        """Raises KubernetesError."""
        service = self._get(RAY_SERVICE, name, namespace)
        if service is None:
            raise KubernetesError(f"namespace {namespace} has no RayService {name}; `aiprod k8s apply` makes it")
        told = service.get("status") or {}
        active, pending = told.get("activeServiceStatus") or {}, told.get("pendingServiceStatus") or {}
        cluster = active.get("rayClusterName") or pending.get("rayClusterName")
        pods = self.pods(namespace, f"app.kubernetes.io/part-of={MANAGER},{CLUSTER}")
        spec = ((self._get(RAY_CLUSTER, cluster, namespace) or {}).get("spec") or {}) if cluster else {}
        return Status(
            conditions={each["type"]: each["status"] for each in told.get("conditions") or []},
            messages={each["type"]: each.get("message", "") for each in told.get("conditions") or []},
            applications=(active or pending).get("applicationStatuses") or {},
            groups=[_group(each, [pod for pod in pods if pod.cluster == cluster]) for each in spec.get("workerGroupSpecs") or []],
            pods=pods,
            is_upgrading=bool(active.get("rayClusterName") and pending.get("rayClusterName")),
        )

    def pool_of(self, deployment: str, name: str, namespace: str) -> str | None:
        """The pool that a deployment of the Serve config is pinned to, None if there is no such deployment."""
        service = self._get(RAY_SERVICE, name, namespace) or {}
        config = yaml.safe_load((service.get("spec") or {}).get("serveConfigV2") or "") or {}
        for application in config.get("applications") or []:
            for each in application.get("deployments") or []:
                if each["name"] == deployment:
                    return (each.get("ray_actor_options") or {}).get("label_selector", {}).get(POOL)
        return None

    def pods(self, namespace: str, selector: str) -> list[Pod]:
        with _said(f"the pods of namespace {namespace} cannot be listed"):
            found = self._core.list_namespaced_pod(namespace, label_selector=selector).items
        return sorted((_pod(each) for each in found), key=lambda pod: (pod.cluster, pod.pool != "head", pod.pool, pod.name))

    def log(self, pod: str, namespace: str, *, follow: bool, tail: int | None, container: str) -> Iterator[str]:
        """The container's lines, as they come while `follow`. Raises KubernetesError."""
        with _said(f"the log of {pod} cannot be read"):
            stream: Any = self._core.read_namespaced_pod_log(
                pod, namespace, container=container, follow=follow, tail_lines=tail, _preload_content=False
            )
            rest = b""
            for chunk in stream.stream(decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    def _resource(self, api_version: str, kind: str) -> Any:
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        try:
            return self._dynamic.resources.get(api_version=api_version, kind=kind)
        except ResourceNotFoundError as error:
            way_out = INSTALL.get(api_version.partition("/")[0], "correct apiVersion or kind")
            raise KubernetesError(f"the cluster knows no {kind} of {api_version}; {way_out}") from error

    def _get(self, kind: tuple[str, str], name: str, namespace: str | None) -> Manifest | None:
        from kubernetes.client.exceptions import ApiException

        resource = self._resource(*kind)
        with _said(f"{kind[1]}/{name} cannot be read"):
            try:
                return self._dynamic.get(resource, name=name, namespace=namespace).to_dict()
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    def _version(self, resource: Any, name: str, namespace: str | None) -> str | None:
        found = self._get((resource.group_version, resource.kind), name, namespace)
        return None if found is None else found["metadata"]["resourceVersion"]

    def _secret_keys(self, namespace: str, name: str) -> set[str] | None:
        """None where one may not look."""
        from kubernetes.client.exceptions import ApiException

        try:
            return set(self._core.read_namespaced_secret(name, namespace).data or {})
        except ApiException as error:
            if error.status == 404:
                return set()
            if error.status == 403:
                return None
            raise KubernetesError(f"Secret/{name} cannot be read: {error.reason}") from error


def connect(context: str | None = None) -> Kubernetes:
    """Whom kubectl would ask. Raises KubernetesError."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise KubernetesError("the kubernetes package is not installed; pip install 'aiprod[k8s]'") from error
    configuration = client.Configuration()
    try:
        config.load_kube_config(context=context, client_configuration=configuration)
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            raise KubernetesError(f"no cluster is named here ({error}); set KUBECONFIG, or name a --context of it") from error
    return Kubernetes(client.ApiClient(configuration))


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Whatever the API or the way to it says, as one KubernetesError."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise KubernetesError(f"{what}: {_reason(error)}") from error
    except HTTPError as error:
        raise KubernetesError(f"{what}: {error}; is the cluster there, and the context the right one?") from error


def _reason(error: Any) -> str:
    """The API server's own words, and for a conflict the way out."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        message = (yaml.safe_load(body) or {}).get("message") or error.reason
    except (yaml.YAMLError, AttributeError):
        message = error.reason
    return f"{message}; --force takes the fields over" if error.status == 409 else str(message)


def _needed_secrets(manifests: list[Manifest], namespace: str) -> dict[tuple[str, str], set[str]]:
    needed: dict[tuple[str, str], set[str]] = {}

    def look(node: Any, namespace: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "secretKeyRef" and not value.get("optional"):
                    needed.setdefault((namespace, value["name"]), set()).add(value["key"])
                look(value, namespace)
        elif isinstance(node, list):
            for value in node:
                look(value, namespace)

    for manifest in manifests:
        look(manifest, manifest["metadata"].get("namespace", namespace))
    return needed


def _group(spec: Mapping[str, Any], pods: list[Pod]) -> Group:
    ready = sum(pod.is_ready for pod in pods if pod.pool == spec["groupName"])
    return Group(spec["groupName"], ready, spec.get("replicas", 0), spec.get("minReplicas", 0), spec["maxReplicas"])


def _pod(found: Any) -> Pod:
    labels, states = found.metadata.labels or {}, found.status.container_statuses or []
    conditions = {each.type: each for each in found.status.conditions or []}
    waiting = next((each.state.waiting for each in states if each.state and each.state.waiting), None)
    unscheduled = conditions.get("PodScheduled")
    return Pod(
        name=found.metadata.name,
        pool="head" if labels.get("ray.io/node-type") == "head" else labels.get(GROUP, ""),
        cluster=labels.get(CLUSTER, ""),
        phase="Terminating" if found.metadata.deletion_timestamp else found.status.phase,
        is_ready="Ready" in conditions and conditions["Ready"].status == "True",
        restarts=sum(each.restart_count for each in states),
        node=found.spec.node_name,
        waits_for=waiting.reason if waiting else unscheduled.message if unscheduled and unscheduled.status == "False" else None,
    )
