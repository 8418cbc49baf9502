"""a stage's result -> raw bytes beside their description -> shared memory -> a value of one's own, and who made it

Ray sends a tensor through torch's own pickling, which copies it twice; raw buffers go out of band, six times as fast. What arrives
maps shared memory that looks writable and is not: one consumer's in-place operation would change what the next one reads. So the
bytes have no other door than `open`, which copies.
"""

import math
import pickle
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Of what travels: replicas of two versions meet during a rolling update, and must refuse what they cannot read.
SCHEMA = 1


@dataclass(frozen=True)
class Receipt:
    """Who ran a step, for how long and on how many GPUs (0: a CPU); queued is from the moment when all its inputs were there."""

    step: str
    stage: str
    replica: str
    queued_seconds: float
    run_seconds: float
    gpus: int = 0


@dataclass(frozen=True)
class TensorBytes:
    """A CPU tensor as its bytes in the order in which they lie in memory: kernels choose their order of summation by it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]  # dimensions from the slowest to the fastest
    data: Any  # anything with the buffer protocol

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorBytes":
        order = tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
        dense = tensor.detach().permute(order).contiguous()
        return cls(tensor.dtype, tuple(tensor.shape), order, dense.reshape(-1).view(torch.uint8).numpy())

    def copy(self) -> Tensor:
        """A tensor of one's own, aligned as torch aligns."""
        dense = torch.empty([self.shape[dim] for dim in self.order], dtype=self.dtype)
        self.write_to(dense.reshape(-1).view(torch.uint8).numpy())
        return dense.permute(tuple(np.argsort(self.order)))

    def write_to(self, target: Any) -> None:
        """Its bytes, into an array of as many."""
        target[:] = np.frombuffer(self.data, dtype=np.uint8)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        data = pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data)
        return TensorBytes, (self.dtype, self.shape, self.order, data)


@dataclass(frozen=True)
class Sealed:
    """A value on its way from one stage to the next, with the receipts of all the steps that led to it."""

    kind: type
    parts: dict[str, Any]
    receipts: tuple[Receipt, ...]
    sealed_at: float = field(default_factory=time.time)

    @classmethod
    def of(cls, value: Any, *, receipts: tuple[Receipt, ...]) -> "Sealed":
        """Seals a dataclass whose tensors are on the CPU and directly in its fields, or a text."""
        if isinstance(value, str):
            return cls(str, {"object": value}, receipts)  # by the name of `str`'s parameter, so that `open` makes it like the others
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return cls(type(value), {name: TensorBytes.of(p) if isinstance(p, Tensor) else p for name, p in parts.items()}, receipts)

    def open(self) -> Any:
        """The value, with tensors of its own."""
        return self.kind(**{name: part.copy() if isinstance(part, TensorBytes) else part for name, part in self.parts.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (SCHEMA, self.kind, self.parts, self.receipts, self.sealed_at)


def merge_receipts(sources: Iterable[Sealed]) -> tuple[Receipt, ...]:
    """The receipts of all sources, each step's once, in order."""
    return tuple({receipt.step: receipt for source in sources for receipt in source.receipts}.values())


def _arrive(schema: int, *content: Any) -> Sealed:
    if schema != SCHEMA:
        raise ValueError(f"a stage sent envelope schema {schema} and this one reads {SCHEMA}; deploy one version of AIPROD everywhere")
    return Sealed(*content)
