"""module <-> NAME.safetensors with NAME.json (its config) beside it"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from aiprod_components.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)


def save_model(model: nn.Module, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes `path`.safetensors and `path`.json; floating-point tensors are stored as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: t.detach().cpu().to(dtype if t.is_floating_point() else t.dtype).contiguous() for name, t in model.state_dict().items()
    }
    config: Any = model.config
    save_file(tensors, path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(json.dumps({"model": type(model).__name__, "config": asdict(config)}, indent=2) + "\n")


def load_model(model_class: type[M], config_class: type, path: Path) -> M:
    """Reads what `save_model` wrote, in float32, ready for inference.

    Raises CheckpointError naming the file and the way out when it is missing, truncated, or holds another model.
    """
    weights, description = path.with_suffix(".safetensors"), path.with_suffix(".json")
    for file in (weights, description):
        if not file.is_file():
            raise CheckpointError(f"{file} does not exist; train it with `python -m aiprod_components.training` or name another folder")
    model = model_class(read_config(model_class, config_class, description))
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is not a whole safetensors file ({error}); copy it again") from error
    try:
        model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {description}: {error}") from error
    return model.eval().requires_grad_(False)


def shapes_in(weights: Path) -> dict[str, tuple[int, ...]]:
    """By name, from the header alone. Raises CheckpointError when the file is missing or truncated."""
    if not weights.is_file():
        raise CheckpointError(f"{weights} does not exist; put it there, or name another folder")
    try:
        with safe_open(weights, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is not a whole safetensors file ({error}); copy it again") from error


def read_config(model_class: type[nn.Module], config_class: type, description: Path) -> Any:
    """The frozen config that NAME.json holds. Raises CheckpointError when it describes another model."""
    try:
        record = json.loads(description.read_text())
        if record["model"] != model_class.__name__:
            raise CheckpointError(f"{description} describes a {record['model']}, not a {model_class.__name__}; name another folder")
        return TypeAdapter(config_class).validate_python(record["config"])
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{description} is not a description of a {model_class.__name__}: {error}") from error
