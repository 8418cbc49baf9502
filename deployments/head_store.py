"""short texts that the processes of a cluster leave for each other: the key-value store of Ray's head

Every call waits for the head, so not in an event loop.
"""

# Ray's own libraries keep their records there; no other way in has a name without an underscore.
from ray.experimental.internal_kv import (
    _internal_kv_get,  # pyright: ignore[reportPrivateUsage]
    _internal_kv_initialized,  # pyright: ignore[reportPrivateUsage]
    _internal_kv_put,  # pyright: ignore[reportPrivateUsage]
)

NAMESPACE = "aiprod"


def is_there() -> bool:
    """Or this process is in no cluster."""
    return _internal_kv_initialized()


def put(key: str, text: str) -> None:
    _internal_kv_put(key, text, overwrite=True, namespace=NAMESPACE)


def get(key: str) -> bytes | None:
    return _internal_kv_get(key, namespace=NAMESPACE)
