"""this machine -> what AIPROD finds on it"""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import av
import torch
from av.codec.codec import UnknownCodecError

from aiprod_components.errors import CheckpointError
from aiprod_components.families import FAMILIES, make_family
from aiprod_components.kernels.attention import backend_for
from aiprod_components.local import best_device

PACKAGES = ("torch", "ray", "av", "transformers", "xformers")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Report:
    """None stands for what is not there: a package, or a component's weights (their bytes). A family that ships none has no entries."""

    versions: dict[str, str | None]
    device: str
    attention: str
    threads: int
    libx264: bool
    weights: dict[str, dict[str, int | None]]


def examine() -> Report:
    device = best_device()
    return Report(
        versions={"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        attention=backend_for(device.type),
        threads=torch.get_num_threads(),
        libx264=_can_encode("libx264"),
        weights={family: _weights(family) for family in FAMILIES},
    )


def facts_of(report: Report) -> list[tuple[str, str]]:
    """The report line by line, in words."""
    versions = [(name, found or "not installed") for name, found in report.versions.items()]
    machine = [("device", report.device), ("attention", report.attention), ("threads", str(report.threads))]
    codec = [("libx264", "available" if report.libx264 else "missing: no video can be encoded")]
    weights: list[tuple[str, str]] = []
    for family, components in report.weights.items():
        for component, size in components.items():
            weights.append((f"{family}/{component}", "missing: train it" if size is None else f"{size / MEGABYTE:.1f} MB"))
        if not components:
            weights.append((family, "ships no weights: name a folder of trained ones"))
    return [*versions, *machine, *codec, *weights]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _can_encode(codec: str) -> bool:
    try:
        return av.Codec(codec, "w").is_encoder
    except UnknownCodecError:
        return False


def _weights(name: str) -> dict[str, int | None]:
    try:
        family = make_family(name)
    except CheckpointError:  # it ships none
        return {}
    assert family.weights is not None, "a family that names no folder draws random weights only when asked to"
    files = {component: (family.weights / component).with_suffix(".safetensors") for component in family.components}
    return {component: file.stat().st_size if file.is_file() else None for component, file in files.items()}
