"""sealed result <-> bytes in the artifact store: what a finished step leaves behind, for the job's next attempt and for other requests

A safetensors file: the tensors as they lie in memory, and in its header what they are the parts of. Nothing in it is ever unpickled.
"""

import json
from dataclasses import dataclass, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from aiprod_components.errors import MissingArtifactError
from aiprod_components.values import AudioLatents, Latents, PromptEmbeds, Waveform
from deployments.envelope import Sealed, TensorBytes

# What can be kept; a video is published instead.
KINDS: dict[str, type] = {kind.__name__: kind for kind in (PromptEmbeds, Latents, AudioLatents, Waveform, str)}


@dataclass(frozen=True)
class KeptStep:
    """Stands for the result of a step that was finished before: where it is kept, and the identity it is known by."""

    location: str
    identity: str


def to_bytes(sealed: Sealed) -> bytes:
    """Raises KeyError for a kind that is not kept."""
    kind = KINDS[sealed.kind.__name__].__name__
    tensors = {name: part for name, part in sealed.parts.items() if isinstance(part, TensorBytes)}
    header = {
        "kind": kind,
        "orders": {name: part.order for name, part in tensors.items()},
        "shapes": {name: part.shape for name, part in tensors.items()},
        "values": {name: part for name, part in sealed.parts.items() if name not in tensors},
    }
    return save({name: _dense(part) for name, part in tensors.items()}, metadata={"aiprod": json.dumps(header)})


def from_bytes(data: bytes) -> Sealed:
    """What was kept, with no receipts. Raises MissingArtifactError for what is no kept step."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["aiprod"])
        tensors = load(data)
        parts: dict[str, Any] = {name: _as_sent(tensors[name], header, name=name) for name in tensors} | header["values"]
        kind = KINDS[header["kind"]]
        ordered = {f.name: parts[f.name] for f in fields(kind)} if kind is not str else parts
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MissingArtifactError(f"what was kept of a step cannot be read ({type(error).__name__})") from error
    return Sealed(kind, ordered, ())


def _dense(part: TensorBytes) -> Tensor:
    """In the order in which it lies in memory."""
    return part.copy().permute(part.order).contiguous()


def _as_sent(dense: Tensor, header: dict[str, Any], *, name: str) -> TensorBytes:
    order = tuple(header["orders"][name])
    return TensorBytes(dense.dtype, tuple(header["shapes"][name]), order, dense.contiguous().reshape(-1).view(torch.uint8).numpy())
