"""a file of a checkpoint -> what it says; a part's folder -> the files of weights that are loaded; or what is wrong, and the way out

Only what is loaded is looked at: beside it there may be weights in other formats, or of other people.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from aiprod_components.errors import CheckpointError

# Part -> how the names of its files of weights begin; those of all others as diffusers has it.
STEMS = {"text_encoder": "model"}
DIFFUSERS_STEM = "diffusion_pytorch_model"

# Formats that diffusers does not load -> how the names of their scales end; the first that is met says which it is.
SCALED = {"NVFP4": (".weight_scale_2",), "scaled fp8": (".weight_scale", ".scale_weight", "scaled_fp8")}
WIDE = ("F64", "F32", "F16", "BF16")  # others would be cast to numbers that mean something else
COUNTED = "position_ids"  # numbers of places, which transformers leaves out where it meets them

# What transformers would load instead of the weights beside it, or on top of them.
DETOURS = ("adapter_config.json", "shard-?????-model-*.safetensors")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
READ_HERE = ("model_index.json", "scheduler_config.json")  # by nobody else

KINDS: dict[type, str] = {int: "a whole number", list: "a list", dict: "an object"}

Config = dict[str, Any]
T = TypeVar("T")


def read_json(file: Path) -> Config:
    """Raises CheckpointError when it is missing or not a JSON object."""
    try:
        content = file.read_bytes()
        if content.startswith(BYTE_ORDER_MARK) and file.name not in READ_HERE:
            raise CheckpointError(f"{file} begins with a byte order mark, which the libraries that load it refuse; save it without one")
        read = json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; fetch it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); fetch it again") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{file} is damaged (it is no JSON object); fetch it again")
    return read


def value_of(config: Config, key: str, *, kind: type[T], file: Path) -> T | None:
    """What `file`, whose content is `config`, says of `key`; None: it says nothing. Raises CheckpointError for another kind of value."""
    if key not in config:
        return None
    # To Python, truth is a number.
    if not isinstance(value := config[key], kind) or isinstance(value, bool):
        raise CheckpointError(f"{file} is damaged ({key} is {repr(value)[:80]}, and not {KINDS[kind]}); fetch it again")
    return value


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Raises CheckpointError; a file that is cut off is shorter than its header says."""
    try:
        with safe_open(file, "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut off ({error}); fetch it again") from error


def check_tensors(file: Path) -> dict[str, tuple[int, ...]]:
    """The names in a file of weights and their shapes, from its header alone. Raises CheckpointError for what is not loaded as it is."""
    with opened(file) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        precisions = {name: piece.get_dtype() for name, piece in slices.items()}
        shapes = {name: tuple(piece.get_shape()) for name, piece in slices.items()}
    for kind, endings in SCALED.items():
        if scale := next((name for name in shapes if name.endswith(endings)), None):
            raise CheckpointError(f"{file} holds {kind} weights ({scale}), which diffusers does not load; fetch the bfloat16 weights")
    for name, precision in precisions.items():
        if precision not in WIDE and name.rpartition(".")[2] != COUNTED:
            raise CheckpointError(f"{file} holds {precision} weights ({name}), which mean nothing as they are; fetch the bfloat16 weights")
    return shapes


def files_of(folder: Path) -> list[Path]:
    """The files of a part's weights that are loaded. Raises CheckpointError when there are none."""
    whole, index = _whole(folder), _index(folder)
    # Where there are both, transformers reads the whole, and diffusers goes by the index.
    if whole.is_file() and (folder.name in STEMS or not index.is_file()):
        return [whole]
    if index.is_file():
        return [folder / name for name in sorted(set(_places(index).values()))]
    if other := min(folder.glob("*.safetensors"), default=None):
        raise CheckpointError(
            f"{folder} has {other.name}, but neither {whole.name} nor its index of parts, {index.name}; fetch that as well"
        )
    raise CheckpointError(f"{folder} has no .safetensors file; fetch the weights of this part of the checkpoint")


def check_weights(folder: Path) -> set[str]:
    """The names of a part's weights.

    Raises CheckpointError when its config or weights are missing, cut off, or in a format that is not loaded.
    """
    _check_config(folder)
    files, index = files_of(folder), _index(folder)
    if files == [_whole(folder)]:
        return set(check_tensors(files[0]))
    places = _places(index)
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, which {index.name} names; fetch it")
    held = {file.name: check_tensors(file) for file in files}
    for key, name in places.items():
        if key not in held[name]:
            raise CheckpointError(f"{folder / name} has no {key}, which {index.name} says it has; fetch both again")
    return set(places)


def check_tokenizer(folder: Path) -> None:
    """Raises CheckpointError when a file of the tokenizer is missing or damaged."""
    read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json")
    elif not (folder / "tokenizer.model").is_file():
        raise CheckpointError(f"{folder} has neither tokenizer.json nor tokenizer.model; fetch the folder tokenizer of this checkpoint")


def read_tensors(folder: Path, names: tuple[str, ...]) -> list[Tensor]:
    """Of a part's weights those of these names. Raises CheckpointError when one is missing."""
    found: dict[str, Tensor] = {}
    for file in files_of(folder):
        with opened(file) as tensors:
            found |= {name: tensors.get_tensor(name) for name in names if name in tensors.keys()}  # noqa: SIM118
    if missing := [name for name in names if name not in found]:
        raise CheckpointError(f"{folder} has no {missing[0]}; fetch the folder {folder.name} of this checkpoint again")
    return [found[name] for name in names]


def _whole(folder: Path) -> Path:
    return folder / f"{STEMS.get(folder.name, DIFFUSERS_STEM)}.safetensors"


def _index(folder: Path) -> Path:
    return folder / f"{_whole(folder).name}.index.json"


def _places(index: Path) -> dict[str, str]:
    """Name of a weight -> the file beside the index that holds it."""
    said = read_json(index)
    for key in ("weight_map", "metadata"):
        if not isinstance(said.get(key), dict):
            raise CheckpointError(f"{index} is damaged (it has no {key}); fetch it again")
    places = said["weight_map"]
    if not places:
        raise CheckpointError(f"{index} is damaged (its weight_map is empty); fetch it again")
    for key, name in places.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} is damaged ({key} is in {repr(name)[:80]}, which is no file beside it); fetch it again")
    return places


def _check_config(folder: Path) -> None:
    """Raises CheckpointError for a config that asks for other weights than those that are looked at here."""
    config = read_json(folder / "config.json")
    if config.get("quantization_config") is not None:
        raise CheckpointError(f"{folder} holds quantized weights (quantization_config in config.json); fetch the bfloat16 weights")
    if config.get("transformers_weights") is not None:
        raise CheckpointError(f"{folder / 'config.json'} names other weights (transformers_weights); take that out, or fetch it again")
    if folder.name in STEMS and (other := min((path for name in DETOURS for path in folder.glob(name)), default=None)):
        raise CheckpointError(f"{other} would be loaded over the weights beside it; take it out of the folder")
