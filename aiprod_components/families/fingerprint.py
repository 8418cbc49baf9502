"""weights, tables, code, versions -> one hash: where it is the same, so are the results of a call (on one kind of device)"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[1]
# What lies in these folders makes weights, and no results.
NOT_SERVED = ("training", "miniature")
# The packages whose arithmetic, pictures and videos end up in results.
PACKAGES = ("torch", "transformers", "av", "pillow")
OPTIONAL_PACKAGES = ("diffusers", "peft")
BEGINNING, BLOCK, SAMPLES = 1 << 20, 1 << 16, 256  # of what is read of a large file


def fingerprint_of(tables: dict[str, Any], files: Iterable[tuple[str, Path]]) -> str:
    """Of a family's tables (as JSON) and its named files, of the code that serves it, and of the packages that this stands on."""
    # Builds of one version for other devices (2.11.0+cu128) are one version: devices differ anyway.
    versions = {package: _version_of(package) for package in (*PACKAGES, *OPTIONAL_PACKAGES)}
    contents = sorted((name, digest_of_file(file)) for name, file in [*files, *_sources()])
    return hashlib.sha256(json.dumps([tables, versions, contents], sort_keys=True).encode()).hexdigest()


def sample_of_file(file: Path) -> str:
    """A hash of its size, its beginning (a safetensors file's names and shapes) and blocks from all over it.

    For files that are too large to be read whole at every start; small ones are read whole.
    """
    size = file.stat().st_size
    if size <= SAMPLES * BLOCK:
        return digest_of_file(file)
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        digest.update(content.read(BEGINNING))
        for number in range(SAMPLES):
            content.seek(number * (size - BLOCK) // (SAMPLES - 1))
            digest.update(content.read(BLOCK))
    return digest.hexdigest()


def files_in(kind: str, folder: Path | None, *patterns: str) -> Iterator[tuple[str, Path]]:
    """The files of a folder (None: of none) that match one of the patterns, each named by its kind and its place there."""
    if folder is not None:
        yield from ((f"{kind}/{file.relative_to(folder).as_posix()}", file) for file in _matching(folder, patterns))


def digest_of_file(file: Path) -> str:
    """SHA-256 of the content, read once per process unless the file has changed since."""
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


def _version_of(package: str) -> str | None:
    """None: it is not installed."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


@cache
def _digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sources() -> Iterator[tuple[str, Path]]:
    for name, file in files_in("code", CODE, "**/*.py", "**/*.toml"):
        if file.relative_to(CODE).parts[0] not in NOT_SERVED:
            yield name, file


def _matching(folder: Path, patterns: Iterable[str]) -> set[Path]:
    return {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
