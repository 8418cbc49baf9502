"""manifests -> what is wrong in them: keys that no schema has, values that no API server takes, names of things that are not there

KubeRay's schema is its CRD, closed: what it does not name is a fault. Of PodMonitors no CRD is at hand; their schema is written here by
hand, of what is used. Everything else is in kubernetes-validate.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.scripts.scripts import start

from tests.graph import ROOT
from tests.k8s.manifests import Document

CRD = ROOT.parent / "shared/data/kuberay/ray.io_rayservices.yaml"
KUBERNETES = "1.31"  # the oldest that is meant to work
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": TEXTS, "annotations": TEXTS},
}
DURATION = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}
AUTHORIZATION = {
    "type": "object",
    "required": ["credentials"],
    "additionalProperties": False,
    "properties": {"type": {"const": "Bearer"}, "credentials": {"type": "object", "required": ["name", "key"]}},
}
POD_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": METADATA,
        "spec": {
            "type": "object",
            "required": ["selector", "podMetricsEndpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "type": "object",
                    "required": ["matchLabels"],
                    "additionalProperties": False,
                    "properties": {"matchLabels": TEXTS},
                },
                "podTargetLabels": {"type": "array", "items": {"type": "string"}},
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["port"],
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": DURATION,
                            "scrapeTimeout": DURATION,
                            "authorization": AUTHORIZATION,
                        },
                    },
                },
            },
        },
    },
}
# Words that the API server knows and the schemas leave open.
WORDS: dict[str, set[str]] = {
    "protocol": {"TCP", "UDP", "SCTP"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "operator": {"Exists", "Equal", "In", "NotIn", "DoesNotExist"},
    "imagePullPolicy": {"IfNotPresent", "Always", "Never"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "drop": {"ALL"},
    "type": {"RuntimeDefault", "NewCluster", "Recreate", "Bearer"},
    "appProtocol": {"http", "kubernetes.io/h2c"},
    "pod-security.kubernetes.io/enforce": {"privileged", "baseline", "restricted"},
    "pod-security.kubernetes.io/warn": {"privileged", "baseline", "restricted"},
}

needs_crd = pytest.mark.skipif(not CRD.is_file(), reason=f"KubeRay's CRDs are not at {CRD}")


def schema_faults(document: Document) -> Iterator[str]:
    """What no API server with KubeRay and Prometheus' operator would take."""
    at = f"{document.get('kind')}/{(document.get('metadata') or {}).get('name')}"
    if document.get("kind") in ("RayService", "PodMonitor"):
        yield from (f"{at}{error.json_path[1:]}: {error.message}" for error in _validator(document["kind"]).iter_errors(document))
    else:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (ValidationError, kubernetes_validate.SchemaNotFoundError, KeyError) as error:
            yield f"{at}: {error}"
    for path, key, word in _words(document):
        if key in WORDS and word not in WORDS[key]:
            yield f"{at}{path}: {word!r} is none of {', '.join(sorted(WORDS[key]))}"
    for path, parameters in _named(document, "rayStartParams"):
        yield from (f"{at}{path}.{name} is no option of `ray start`" for name in parameters if name not in _start_options())


def _words(node: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text with where it is and under which key."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _words(value, f"{path}.{name}", name)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _words(value, f"{path}[{number}]", key)
    elif isinstance(node, str):
        yield path, key, node


def _named(node: Any, name: str, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield f"{path}.{key}", value
            yield from _named(value, name, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _named(value, name, f"{path}[{number}]")


@cache
def _start_options() -> frozenset[str]:
    return frozenset(option.removeprefix("--") for parameter in start.params for option in parameter.opts)


@cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(POD_MONITOR if kind == "PodMonitor" else closed(crd_schema(CRD)))


def crd_schema(path: Path) -> dict[str, Any]:
    versions = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
    schema["properties"]["metadata"] = METADATA
    schema["properties"]["apiVersion"] = {"const": "ray.io/v1"}
    del schema["properties"]["status"]
    return {**schema, "required": ["apiVersion", "kind", "metadata", "spec"]}


def closed(schema: Any) -> Any:
    """The schema, in which what it does not name is a fault, and Kubernetes' integers that may be texts are what they are."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    known = {
        name: ({key: closed(each) for key, each in value.items()} if name == "properties" else closed(value))
        for name, value in schema.items()
    }
    if known.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string", **({"pattern": known["pattern"]} if "pattern" in known else {})}]}
    if "properties" in known and "additionalProperties" not in known and not known.get("x-kubernetes-preserve-unknown-fields"):
        known["additionalProperties"] = False
    return known
