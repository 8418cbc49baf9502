"""a family, one of its stages, a folder -> the family with that stage's networks from there; or why they do not take the others' place

Other numbers of the same networks: configs and shapes must be those of the family's own. Headers are read, never weights.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aiprod_components.errors import CheckpointError
from aiprod_components.families.base import Description, Family
from aiprod_components.families.ltx2_folder import readable

F = TypeVar("F", bound=Family)

SHOWN = 60  # characters of a value at fault


def with_weights(family: F, stage: str, folder: Path) -> F:
    """`folder` is laid out as the family's own; what the stage does not compute with, and what is not there, stays as it was.

    Raises CheckpointError naming the file and the way out when the stage has no weights, or they are missing, damaged or another network's.
    """
    networks = family.networks_of(stage)
    if not networks:
        raise CheckpointError(f"stage {stage} of {family.name} has no weights of its own in the family's folder; leave weights out")
    with readable(folder):
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is no folder; name one with the {networks[0]} of stage {stage}, laid out as the family's own")
        found = [name for name in networks if family.file_of(name, folder).exists()]
        if networks[0] not in found:
            missing = family.file_of(networks[0], folder)
            raise CheckpointError(f"{missing} is missing, which stage {stage} computes with; put it there, or name another folder")
        for name in found:
            own = family.describe(name, family.folder_of(name))
            _check_alike(family.describe(name, folder), own, file=family.file_of(name, folder))
    return replace(family, replaced={**family.replaced, **dict.fromkeys(found, folder)})


def _check_alike(given: Description, own: Description, *, file: Path) -> None:
    if fault := _other_value(given.config, own.config) or (given.shapes and own.shapes and _other_shape(given.shapes, own.shapes)):
        raise CheckpointError(
            f"{file} is of another network than the family's: {fault}; name weights of the same one, or change the family's args"
        )


def _other_value(given: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    for key in sorted(given.keys() | own.keys()):
        if (value := given.get(key)) != (expected := own.get(key)):
            return f"{key} is {_shown(value)}, and {_shown(expected)} there"
    return None


def _other_shape(given: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> str | None:
    for name in sorted(given.keys() | own.keys()):
        if (shape := given.get(name)) != (expected := own.get(name)):
            return f"{name} is {_size(shape)}, and {_size(expected)} there"
    return None


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:SHOWN]


def _size(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
