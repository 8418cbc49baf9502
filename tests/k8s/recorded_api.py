"""a recorded API: what an API server with KubeRay answers to the requests that we make, written down by hand after its documents

It is no cluster: it keeps what is applied, says what `told` says of the RayService, and refuses what a server refuses by its form. That
the objects themselves are right is for the strict validation of the manifests.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KNOWN: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "Pod": ("pods", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "apps/v1": {"Deployment": ("deployments", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "ray.io/v1": {"RayService": ("rayservices", True), "RayCluster": ("rayclusters", True)},
    "monitoring.coreos.com/v1": {"PodMonitor": ("podmonitors", True)},
}
PLURALS = {plural: (group, kind) for group, kinds in KNOWN.items() for kind, (plural, _) in kinds.items()}


@dataclass
class RecordedApi:
    """What the server has and was asked: `objects` by (plural, name), `logs` by (pod, container), `requests` as (method, path, query)."""

    url: str = ""
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)  # API groups that are not installed
    owned_by_others: set[str] = field(default_factory=set)  # names of objects whose fields something else has set
    may_read_secrets: bool = True
    version: int = 100

    def put(self, plural: str, name: str, **parts: Any) -> None:
        group, kind = PLURALS[plural]
        self.version += 1
        metadata = {"name": name, "namespace": "aiprod", "resourceVersion": str(self.version), **parts.pop("metadata", {})}
        self.objects[plural, name] = {"apiVersion": group, "kind": kind, "metadata": metadata, **parts}

    def applied(self) -> list[str]:
        return [path.rsplit("/", 2)[-2] + "/" + path.rsplit("/", 1)[-1] for method, path, _ in self.requests if method == "PATCH"]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, content_type: str) -> tuple[int, Any]:
        steps = [step for step in path.split("/") if step]
        if path == "/version":
            return 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return 200, {"kind": "APIGroupList", "groups": [_group(name) for name in KNOWN if name != "v1" and name not in self.absent]}
        if steps[-1] == "v1" and len(steps) <= 3:
            return self._resources("v1" if steps[0] == "api" else "/".join(steps[1:]))
        return self._object(method, steps, query, body, content_type)

    def _resources(self, group: str) -> tuple[int, Any]:
        if group not in KNOWN or group in self.absent:
            return _failure(404, "the server could not find the requested resource")
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["get", "list", "patch"]}
            for kind, (plural, namespaced) in KNOWN[group].items()
        ]
        return 200, {"kind": "APIResourceList", "groupVersion": group, "resources": resources}

    def _object(self, method: str, steps: list[str], query: dict[str, str], body: bytes, content_type: str) -> tuple[int, Any]:
        if steps[-1] == "log":
            return 200, self.logs[steps[-2], query["container"]].encode()
        if steps[-1] in PLURALS:
            chosen = [each for (plural, _), each in self.objects.items() if plural == steps[-1] and _matches(each, query)]
            return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": chosen}
        plural, name = steps[-2:]
        if plural == "secrets" and not self.may_read_secrets:
            return _failure(403, "secrets is forbidden")
        if method == "GET":
            found = self.objects.get((plural, name))
            return (200, found) if found else _failure(404, f'{plural} "{name}" not found')
        return self._apply(plural, name, query, body, content_type)

    def _apply(self, plural: str, name: str, query: dict[str, str], body: bytes, content_type: str) -> tuple[int, Any]:
        if content_type != "application/apply-patch+yaml" or not query.get("fieldManager"):
            return _failure(415, "server-side apply needs its content type and a fieldManager")
        if name in self.owned_by_others and query.get("force") != "true":
            return _failure(409, 'Apply failed with 1 conflict: conflict with "kubectl" using v1: .data.PGHOST')
        sent, before = json.loads(body), self.objects.get((plural, name))
        if query.get("dryRun") != "All" and (before is None or {**before, "metadata": sent["metadata"]} != sent):
            self.put(plural, name, **{key: value for key, value in sent.items() if key not in ("apiVersion", "kind")})
        kept = self.objects.get((plural, name), {**sent, "metadata": {**sent["metadata"], "resourceVersion": "0"}})
        return (201 if before is None else 200), kept


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": name, "version": name.partition("/")[2]}
    return {"name": name.partition("/")[0], "versions": [version], "preferredVersion": version}


def _failure(code: int, message: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def _matches(found: dict[str, Any], query: dict[str, str]) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
    return all(labels.get(key) == value if equal else key in labels for key, equal, value in wanted)


@contextmanager
def running(api: RecordedApi) -> Iterator[RecordedApi]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(asked.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api.requests.append((self.command, asked.path, query))
            code, answer = api.answer(self.command, asked.path, query, body, self.headers.get("Content-Type", ""))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, bytes) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_PATCH(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
