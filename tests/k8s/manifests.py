"""an overlay -> its manifests: as `kubectl kustomize` builds them, or where kubectl is absent, its RayService merged here"""

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.render import OVERLAYS

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
BASE = OVERLAYS.parent / "base"
MERGED_HERE = ("rayservice.yaml", "redis.yaml", "environment.yaml")  # the patches of an overlay that are merge patches

Document = dict[str, Any]


@cache
def builds_here() -> bool:
    """Whether kubectl is there, with a kustomize that knows components (Debian's own is older)."""
    if shutil.which("kubectl") is None:
        return False
    said = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=False, timeout=60).stdout
    return bool(re.search(r'"kustomizeVersion": "v([5-9]|\d\d)', said))


def read(path: Path) -> list[Document]:
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def manifests(overlay: str) -> list[Document]:
    """A copy of its own for every caller."""
    return copy.deepcopy(_built(overlay) if builds_here() else _merged(overlay))


@cache
def _built(overlay: str) -> list[Document]:
    built = subprocess.run(["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 0, built.stderr
    return list(yaml.load_all(built.stdout, Loader=yaml.CSafeLoader))


@cache
def _merged(overlay: str) -> list[Document]:
    """What kustomize would build, but for what components, JSON patches and image names change."""
    kustomization = read(OVERLAYS / overlay / "kustomization.yaml")[0]
    whole = [document for name in read(BASE / "kustomization.yaml")[0]["resources"] for document in read(BASE / name)]
    whole += [each for name in kustomization["resources"] if not name.startswith("..") for each in read(OVERLAYS / overlay / name)]
    for component in kustomization.get("components", ()):
        folder = OVERLAYS / overlay / component
        whole += [document for name in read(folder / "kustomization.yaml")[0]["resources"] for document in read(folder / name)]
    for name in MERGED_HERE:
        for patch in read(OVERLAYS / overlay / name) if (OVERLAYS / overlay / name).exists() else ():
            (target,) = [each for each in whole if (each["kind"], each["metadata"]["name"]) == (patch["kind"], patch["metadata"]["name"])]
            _merge(target, patch)
    for document in whole:
        if document["kind"] != "Namespace":
            document["metadata"]["namespace"] = kustomization["namespace"]
    return whole


def _merge(target: Document, patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def rayservice(documents: list[Document]) -> Document:
    (found,) = of_kind(documents, "RayService")
    return found


def cluster(documents: list[Document]) -> Document:
    return rayservice(documents)["spec"]["rayClusterConfig"]


def groups(documents: list[Document]) -> dict[str, Document]:
    return {group["groupName"]: group for group in cluster(documents)["workerGroupSpecs"]}


def serve_config(documents: list[Document]) -> Document:
    return yaml.safe_load(rayservice(documents)["spec"]["serveConfigV2"])


def deployments(documents: list[Document]) -> Iterator[Document]:
    for application in serve_config(documents)["applications"]:
        yield from application["deployments"]


def pod_templates(documents: list[Document]) -> dict[str, Document]:
    """Every pod that there may be, by who makes it."""
    pods = {"head": cluster(documents)["headGroupSpec"]["template"]}
    pods |= {name: group["template"] for name, group in groups(documents).items()}
    return pods | {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(documents, "Deployment")}


needs_kubectl = pytest.mark.skipif(not builds_here(), reason="no kubectl with kustomize 5 is installed")
