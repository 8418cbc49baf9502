"""results by identity -> the latest of them in memory, up to so many bytes"""

from collections import OrderedDict
from typing import Any

from deployments.envelope import Sealed, TensorBytes

MAX_BYTES = 128_000_000
ENTRY_BYTES = 2_000  # that each takes besides: its identity, its envelope and what Python makes of them


class ResultMemory:
    """What a replica made or read last. Not for several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._kept: OrderedDict[str, Sealed] = OrderedDict()
        self._bytes, self._max = 0, max_bytes

    def get(self, identity: str) -> Sealed | None:
        if identity in self._kept:
            self._kept.move_to_end(identity)
        return self._kept.get(identity)

    def put(self, identity: str, sealed: Sealed) -> None:
        if identity in self._kept:
            return
        self._kept[identity] = sealed
        self._bytes += _size(sealed)
        while self._bytes > self._max:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(sealed: Sealed) -> int:
    return ENTRY_BYTES + sum(map(_bytes_of, sealed.parts.values()))


def _bytes_of(part: Any) -> int:
    if isinstance(part, TensorBytes):
        return memoryview(part.data).nbytes
    return len(part.encode()) if isinstance(part, str) else 0
