"""a single file of LTX-2 2.0, and a diffusers folder that has what it lacks -> a diffusers folder of its own

The names of weights are translated by the diffusers package, which knows those of 2.0 alone, and not of every part: the others come from
the folder, and where the file has them too, under its own names, they must be the same.
"""

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from aiprod_components.errors import CheckpointError, InvalidRequestError
from aiprod_components.families.ltx2 import VARIANTS, is_installed
from aiprod_components.families.ltx2_files import check_tensors, check_tokenizer, check_weights, files_of, read_json
from aiprod_components.families.ltx2_folder import LICENCES, NEEDED, WEIGHED, check_folder, detect_version

# Part -> diffusers' class of it, and how its names begin in a single file.
TRANSLATED = {
    "transformer": ("LTX2VideoTransformer3DModel", "model.diffusion_model."),
    "vae": ("AutoencoderKLLTX2Video", "vae."),
    "audio_vae": ("AutoencoderKLLTX2Audio", "audio_vae."),
}
# Parts whose names the package does not translate -> what these are in a single file.
COMPARED = {"connectors": re.compile(r"(video|audio)_embeddings_connector\."), "vocoder": re.compile(r"^vocoder\.")}
# Besides the parts: what makes a folder complete, where it is there.
BESIDE = ("model_index.json", "README.md", *LICENCES)

# Which transformer a folder has is told by its scheduler.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "dev": {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    "distilled": {"use_dynamic_shifting": False, "shift_terminal": None},
}
SCRIPT = "scripts/convert_ltx2_to_diffusers.py of huggingface/diffusers"

Watch = Callable[[str, int, int], None]
"""Is told of the part that is worked on, the bytes that are done, and all bytes."""


def convert(source: Path, folder: Path, *, base: Path | None, variant: str, watch: Watch) -> None:
    """Write `folder`, whole or not at all; weights keep their precision.

    Raises InvalidRequestError for what can be asked otherwise, CheckpointError for files that cannot be converted.
    """
    if not is_installed("diffusers"):
        raise CheckpointError("converting needs diffusers; install it with: pip install 'aiprod[ltx2]'")
    if variant not in VARIANTS:
        raise InvalidRequestError(f"variant {variant!r} is unknown; the variants are {', '.join(VARIANTS)}", field="variant")
    if folder.exists() or folder.is_symlink():
        raise InvalidRequestError(f"{folder} is there already and stays as it is; name a folder that is not", field="folder")
    if not folder.absolute().parent.is_dir():
        raise InvalidRequestError(f"folder {folder.parent} does not exist; make it first", field="folder")
    if base is not None and base.resolve() in folder.resolve().parents:
        raise InvalidRequestError(f"{folder} is inside of {base}, which it is made from; name a folder outside of it", field="folder")
    names = list(check_tensors(source))
    check_version(source, names)
    translated = {part: own for part, (_, prefix) in TRANSLATED.items() if (own := [name for name in names if name.startswith(prefix)])}
    base = _check_base(base, source=source, taken=[name for name in NEEDED if name not in translated])
    sizes = {part: _size(base / part) for part in (*NEEDED, "loras") if part not in translated} | _sizes(source, translated)
    _check_room(folder, sum(sizes.values()))
    for part, pattern in COMPARED.items():
        _check_same(source, [name for name in names if pattern.search(name)], folder=base / part)

    with TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}.") as room:
        made, done = Path(room) / folder.name, 0
        made.mkdir()
        for part, size in sizes.items():
            watch(part, done, sum(sizes.values()))
            if part in translated:
                _translate(source, translated[part], part=part, base=base, made=made)
            elif (base / part).is_dir():
                _copy(base / part, made / part)
            done += size
            watch(part, done, sum(sizes.values()))
        for name in BESIDE:
            if (base / name).is_file():
                shutil.copyfile(base / name, made / name)
        _write_scheduler(made / "scheduler" / "scheduler_config.json", variant=variant)
        check_folder(made)
        made.rename(folder)


def _copy(part: Path, made: Path) -> None:
    """Without its modes: what comes from where nobody may write is written to here, and later by its owner."""
    shutil.copytree(part, made, copy_function=shutil.copyfile)
    for folder in (made, *(path for path in made.rglob("*") if path.is_dir())):
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)


def version_of_names(names: list[str]) -> str | None:
    """Of the transformer that a single file holds; None: of none of LTX-2."""
    _, prefix = TRANSLATED["transformer"]
    transformer = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    if not any(name.startswith("av_ca_") for name in transformer):
        return None
    if any(name.startswith("caption_projection.") for name in transformer):
        return "2.0"
    return "2.3" if "transformer_blocks.0.ff.net.0.proj.bias" in transformer else "2.5"


def check_version(source: Path, names: list[str]) -> None:
    """Raises CheckpointError for every other version than 2.0."""
    version = version_of_names(names)
    if version is None:
        raise CheckpointError(f"{source} holds no transformer of LTX-2 under its original names; name a whole checkpoint of LTX-2 2.0")
    if version != "2.0":
        raise CheckpointError(
            f"{source} is of LTX-2 {version}, and the diffusers package translates the names of 2.0 alone; convert it with {SCRIPT} "
            f"(--version {version}), or fetch the diffusers folder of {version}"
        )


def _check_base(base: Path | None, *, source: Path, taken: list[str]) -> Path:
    if base is None:
        raise InvalidRequestError(f"{source} lacks {', '.join(taken)}; say --from FOLDER that has them", field="from")
    if not (base / "model_index.json").is_file():
        raise CheckpointError(f"{base} has no model_index.json, so it is no diffusers folder; name one of LTX-2 2.0")
    if (version := detect_version(base).name) != "2.0":
        raise CheckpointError(f"{base} is of LTX-2 {version}, and {source} of 2.0; name a diffusers folder of LTX-2 2.0")
    for name in taken:
        if not (base / name).is_dir():
            raise CheckpointError(f"{base} has no folder {name}, nor has {source}; fetch that part of the folder as well")
        if name in WEIGHED:
            check_weights(base / name)
    read_json(base / "scheduler" / "scheduler_config.json")
    check_tokenizer(base / "tokenizer")
    for name in TRANSLATED:
        read_json(base / name / "config.json")
    return base


def _check_room(folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder.absolute().parent).free) < needed:
        raise InvalidRequestError(f"{folder} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room", field="folder")


def _check_same(source: Path, names: list[str], *, folder: Path) -> None:
    """Raises CheckpointError unless all that the file has under these names is in the folder, under whatever names."""
    there = {_digest(tensor) for file in files_of(folder) for _, tensor in _read(file)} if names else set[bytes]()
    if other := next((name for name, tensor in _read(source, names) if _digest(tensor) not in there), None):
        raise CheckpointError(f"{folder} is of another checkpoint than {source}, whose {other} it has not; convert the file with {SCRIPT}")


def _digest(tensor: Tensor) -> bytes:
    """Of shape and values, whatever the precision that they are kept in."""
    values = tensor.to(torch.bfloat16).flatten().view(torch.uint8)
    return hashlib.sha256(repr(tuple(tensor.shape)).encode() + values.numpy().tobytes()).digest()


def _read(file: Path, names: list[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """None: all of them."""
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys() if names is None else names:
            yield name, tensors.get_tensor(name)


def _translate(source: Path, names: list[str], *, part: str, base: Path, made: Path) -> None:
    """Write the folder of a part. Raises CheckpointError when the file does not hold exactly the weights that its config asks for."""
    kind, _ = TRANSLATED[part]
    config = read_json(base / part / "config.json")
    with torch.device("meta"):
        network = getattr(import_module("diffusers"), kind).from_config(config)
    # Not `from_single_file`: the VAE of sound has none, and the others pass over weights that are missing.
    tables = import_module("diffusers.loaders.single_file_model").SINGLE_FILE_LOADABLE_CLASSES
    weights = tables[kind]["checkpoint_mapping_fn"](checkpoint=dict(_read(source, names)), config=config)
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"the {part} in {source} is not what {base / part / 'config.json'} describes ({said}); name the folder of this checkpoint"
        ) from error
    network.save_pretrained(made / part)


def _write_scheduler(file: Path, *, variant: str) -> None:
    file.write_text(json.dumps(read_json(file) | SCHEDULERS[variant], indent=2) + "\n", encoding="utf-8")


def _sizes(source: Path, translated: dict[str, list[str]]) -> dict[str, int]:
    """Bytes of the parts that are translated, by their share of the names: about, which is enough for a bar."""
    whole, names = source.stat().st_size, sum(map(len, translated.values()))
    return {part: whole * len(own) // names for part, own in translated.items()}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
