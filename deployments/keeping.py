"""sealed result <-> bytes in the artifact store: what a finished step leaves behind, for the job's next attempt and for other requests

A safetensors file: the tensors as they lie in memory, and in its header what they are the parts of. Nothing in it is ever unpickled.
"""

import json
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from aiprod_components.errors import MissingArtifactError
from aiprod_components.values import AudioLatents, Latents, PromptEmbeds, Waveform
from deployments.envelope import Sealed, TensorBytes

# What can be kept; a video is published instead.
KINDS: dict[str, type] = {kind.__name__: kind for kind in (PromptEmbeds, Latents, AudioLatents, Waveform, str)}
# As safetensors calls them.
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class KeptStep:
    """Stands for the result of a step that was finished before: where it is kept, and the identity it is known by."""

    location: str
    identity: str


def to_bytes(sealed: Sealed) -> memoryview:
    """Copies each tensor once, without the interpreter's lock: the result is on its way to the next stage meanwhile.

    Raises KeyError for a kind that is not kept.
    """
    kind = KINDS[sealed.kind.__name__].__name__
    tensors = {name: part for name, part in sealed.parts.items() if isinstance(part, TensorBytes)}
    about = {
        "kind": kind,
        "orders": {name: part.order for name, part in tensors.items()},
        "shapes": {name: part.shape for name, part in tensors.items()},
        "values": {name: part for name, part in sealed.parts.items() if name not in tensors},
    }
    ends = list(accumulate((part.nbytes for part in tensors.values()), initial=0))
    entries: dict[str, Any] = {"__metadata__": {"aiprod": json.dumps(about)}}
    for (name, part), *between in zip(tensors.items(), ends, ends[1:], strict=False):
        dense = [part.shape[dim] for dim in part.order]
        entries[name] = {"dtype": NAMES[part.dtype], "shape": dense, "data_offsets": between}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    first = 8 + len(header)
    whole = np.empty(first + ends[-1], dtype=np.uint8)
    whole[:first] = np.frombuffer(len(header).to_bytes(8, "little") + header, dtype=np.uint8)
    for part, begin in zip(tensors.values(), ends, strict=False):
        part.write_to(whole[first + begin :][: part.nbytes])
    return whole.data


def from_bytes(data: bytes | memoryview) -> Sealed:
    """What was kept, with no receipts; its tensors stay where they are in `data`. Raises MissingArtifactError for what is no kept step."""
    try:
        first = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:first]))
        about = json.loads(header.pop("__metadata__")["aiprod"])
        parts: dict[str, Any] = {name: _part(name, entry, about, memoryview(data)[first:]) for name, entry in header.items()}
        parts |= about["values"]
        kind = KINDS[about["kind"]]
        ordered = {f.name: parts[f.name] for f in fields(kind)} if kind is not str else parts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingArtifactError(f"what was kept of a step cannot be read ({type(error).__name__})") from error
    return Sealed(kind, ordered, ())


def _part(name: str, entry: dict[str, Any], about: dict[str, Any], tensors: memoryview) -> TensorBytes:
    begin, end = entry["data_offsets"]
    part = TensorBytes(DTYPES[entry["dtype"]], tuple(about["shapes"][name]), tuple(about["orders"][name]), tensors[begin:end])
    if len(part.data) != part.nbytes:
        raise ValueError("the file is cut off")
    return part
