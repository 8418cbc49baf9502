"""header and bytes <-> a pipe: what the sandbox and its child say to each other

A message is the length of its header, the header in JSON, and bytes whose number both sides know. Nothing that a child says is
unpickled, and a reader never makes room for more than it asked for.
"""

import json
from collections.abc import Mapping
from io import BufferedIOBase
from typing import Any

MAX_HEADER = 65_536
MAX_ERROR = 2000  # characters of what went wrong; a file may have a say in it


def send(pipe: BufferedIOBase, header: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
    text = json.dumps(header).encode()
    pipe.write(len(text).to_bytes(4))
    pipe.write(text)
    pipe.write(payload)


def receive(pipe: BufferedIOBase) -> dict[str, Any] | None:
    """The next header, or None where the messages end. Raises ValueError for what is no header."""
    if not (length := pipe.read(4)):
        return None
    size = int.from_bytes(length)
    if size > MAX_HEADER:
        raise ValueError(f"a header of {size} bytes")
    text = pipe.read(size)
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("a header within headers without end") from error
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header
