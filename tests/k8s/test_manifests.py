"""k8s/ -> what an API server, KubeRay and Ray take; a typo is found wherever it is made"""

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.errors import ConfigError
from deployments.settings import check_config
from k8s.render import OVERLAYS, Pools, rendered
from tests.k8s.manifests import NAMES, Document, manifests, needs_kubectl, of_kind, rayservice, read, serve_config
from tests.k8s.references import reference_faults
from tests.k8s.strict import needs_crd, schema_faults

GROUP = ("spec", "rayClusterConfig", "workerGroupSpecs", 0)


def faults(documents: list[Document]) -> list[str]:
    return [fault for document in documents for fault in schema_faults(document)] or list(reference_faults(documents))


@needs_crd
@pytest.mark.parametrize("overlay", NAMES)
def test_an_overlay_is_valid(overlay: str) -> None:
    assert faults(manifests(overlay)) == []


@needs_kubectl
@pytest.mark.parametrize("overlay", NAMES)
def test_kubectl_builds_an_overlay_with_pinned_images_in_its_namespace(overlay: str) -> None:
    documents = manifests(overlay)
    images = [image for document in documents for key, image in leaves(document) if key == "image"]
    assert images and all(":" in image and not image.endswith(":latest") for image in images)
    assert all(each["metadata"]["namespace"] == "aiprod" for each in documents if each["kind"] != "Namespace")


@pytest.mark.parametrize("overlay", NAMES)
def test_what_is_rendered_is_what_would_be_rendered_now(overlay: str) -> None:
    for name, text in rendered(OVERLAYS / overlay).items():
        assert (OVERLAYS / overlay / name).read_text(encoding="utf-8") == text, f"{overlay}/{name}: run `python -m k8s.render`"


@pytest.mark.parametrize("overlay", NAMES)
def test_the_serve_config_in_the_manifest_is_the_one_beside_it(overlay: str) -> None:
    beside = (OVERLAYS / overlay / "serve_config.yaml").read_text(encoding="utf-8")
    assert serve_config(manifests(overlay)) == yaml.safe_load(beside)
    assert rayservice(manifests(overlay))["spec"]["serveConfigV2"] == beside


@pytest.mark.parametrize("overlay", NAMES)
def test_a_serve_config_is_accepted(overlay: str, tiny: Path, tmp_path: Path) -> None:
    assert check_config(with_weights(overlay, tiny, tmp_path))["proxy_location"] == "EveryNode"


@pytest.mark.parametrize("overlay", NAMES)
def test_a_typo_in_any_line_of_a_serve_config_is_found(overlay: str, tiny: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(with_weights(overlay, tiny, tmp_path).read_text())
    unseen = []
    for path, wrong in with_one_wrong_key(config):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
        try:
            check_config(tmp_path / "wrong.yaml")
        except ConfigError:
            continue
        unseen.append(path)
    assert [path for path in unseen if not path.endswith(".aiprod-pool")] == []  # labels are compared with the pools'


@needs_crd
@pytest.mark.parametrize("overlay", NAMES)
def test_a_typo_in_any_key_is_found(overlay: str) -> None:
    documents = manifests(overlay)
    tried: dict[str, bool] = {}  # a place of a kind -> whether the typo there was seen
    for number, document in enumerate(documents):
        for path, wrong in with_one_wrong_key(document):
            if (place := f"{document['kind']}{path}") not in tried:
                tried[place] = any(schema_faults(wrong)) or any(reference_faults([*documents[:number], wrong, *documents[number + 1 :]]))
    assert len(tried) > 200
    assert [place for place, is_seen in tried.items() if not is_seen] == []


@needs_crd
@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("RayService", ("spec", "upgradeStrategy", "type"), "NewClusters"),
        ("RayService", ("spec", "rayClusterConfig", "authOptions", "mode"), "tokens"),
        ("RayService", ("spec", "rayClusterConfig", "autoscalerOptions", "version"), "v3"),
        ("RayService", (*GROUP, "minReplicas"), "one"),
        ("RayService", (*GROUP, "labels", "aiprod-pool"), "cpus"),
        ("RayService", (*GROUP, "template", "spec", "restartPolicy"), "Nevr"),
        ("RayService", (*GROUP, "template", "spec", "tolerations", 0, "effect"), "NoShedule"),
        ("NetworkPolicy", ("spec", "policyTypes", 0), "Ingres"),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels", "aiprod-pool"), "hed"),
        ("PodDisruptionBudget", ("spec", "minAvailable"), [1]),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "port"), "metric"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), "15 s"),
        ("PersistentVolumeClaim", ("spec", "accessModes", 0), "ReadOnlyMuch"),
        ("PersistentVolumeClaim", ("metadata", "name"), "aiprod-model"),
        ("ConfigMap", ("metadata", "name"), "aiprods"),
        ("RayService", (*GROUP, "template", "spec", "containers", 0, "resources", "limits", "memory"), "16Gb"),
        ("Namespace", ("kind",), "Namespaces"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_a_wrong_value_is_found(kind: str, path: tuple[str | int, ...], wrong: object) -> None:
    documents = manifests("gpu")
    node: Any = of_kind(documents, kind)[0]
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = wrong
    assert faults(documents) != []


def test_a_typo_in_pools_yaml_is_found() -> None:
    pools = read(OVERLAYS / "gpu/pools.yaml")[0]
    for path, wrong in with_one_wrong_key(pools):
        if "node_selector." not in path:
            with pytest.raises(ValueError, match="validation error"):
                Pools.model_validate(wrong)


@needs_kubectl
def test_a_typo_in_a_kustomization_is_found(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\nresorces: [pod.yaml]\n")
    built = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode != 0 and "resorces" in built.stderr


def with_weights(overlay: str, tiny: Path, tmp_path: Path) -> Path:
    """The overlay's serve config, with a tiny folder wherever it names weights, which are the operator's."""
    config = yaml.safe_load((OVERLAYS / overlay / "serve_config.yaml").read_text(encoding="utf-8"))
    for application in config["applications"]:
        for args in [application["args"], *application["args"].get("families", [])]:
            if "weights" in args:
                args["weights"] = str(tiny) if args["name"] == "ltx2" else "random"
    (tmp_path / "serve_config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "serve_config.yaml"


def with_one_wrong_key(document: Any) -> Iterator[tuple[str, Any]]:
    """(where, the document with that key misspelt), once for each place that a list's items have in common."""
    seen: set[str] = set()
    for path in paths(document):
        where = "".join(f".{step}" for step in path if isinstance(step, str))
        if isinstance(path[-1], str) and where not in seen:
            seen.add(where)
            wrong = copy.deepcopy(document)
            node = wrong
            for step in path[:-1]:
                node = node[step]
            node[f"{path[-1]}s"] = node.pop(path[-1])
            yield where, wrong


def paths(node: Any, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, value in items:
        yield (*before, step)
        yield from paths(value, (*before, step))


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, key)
    elif isinstance(node, str):
        yield key, node
