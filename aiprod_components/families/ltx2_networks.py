"""a part's folder, and the class that reads it -> its network with every weight from its files, or why not

No code and no pickle of a folder is ever read, whatever its configs ask for.
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aiprod_components.errors import CheckpointError

# PyTorch's own: a config may name one that would be fetched, and run.
ATTENTION = "sdpa"
READ = "language_model"  # all that is asked of the text encoder; its other halves see pictures and hear
# What a library reports of having loaded, where it only warns -> what that means.
FAULTS = {
    "missing_keys": "lacks {name}, which would be random numbers",
    "unexpected_keys": "holds {name}, for which its config.json has no place",
    "mismatched_keys": "holds {name} in another shape than its config.json says",
}


def load_network(path: Path, kind: tuple[str, str], *, dtype: torch.dtype) -> nn.Module:
    """`kind` is a library and a class of it. Raises CheckpointError when anything is missing or does not belong."""
    library, name = kind
    # Components that no library exports by themselves are named by the pipeline that they belong to.
    module = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    own = {"attn_implementation": ATTENTION, "trust_remote_code": False} if library == "transformers" else {}
    try:
        network, said = getattr(import_module(module), name).from_pretrained(
            path, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **own
        )
    except MemoryError:
        raise
    except Exception as error:  # what a library says of a folder that it does not understand may be anything
        raise _unloaded(path, error) from error
    for report, fault in FAULTS.items():
        if names := _read(path, said[report]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"{path} {fault.format(name=names[0] + more)}; fetch its weights and its config.json again, from one checkpoint"
            )
    return network.eval().requires_grad_(False)


def load_tokenizer(path: Path) -> Any:
    """Raises CheckpointError when the folder has none that reads."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unloaded(path, error) from error


def _read(path: Path, reported: Iterable[Any]) -> list[str]:
    """Of the names in a report those that results depend on; where shapes differ, they stand beside the names."""
    names = sorted(each if isinstance(each, str) else each[0] for each in reported)
    return [name for name in names if path.name != "text_encoder" or READ in name.split(".")]


def _unloaded(path: Path, error: Exception) -> CheckpointError:
    why = " ".join(str(error).split())[:400] or type(error).__name__
    return CheckpointError(f"{path} cannot be loaded ({why}); fetch the folder {path.name} of this checkpoint again")
