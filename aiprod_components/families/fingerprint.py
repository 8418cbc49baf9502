"""weights, tables, code, versions -> one hash: where it is the same, so are the results of a call (on one kind of device)"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[1]
# What lies in these folders makes weights, and no results.
NOT_SERVED = ("training", "miniature")
# The packages whose arithmetic, pictures and videos end up in results.
PACKAGES = ("torch", "transformers", "av", "pillow")


def fingerprint_of(tables: dict[str, Any], files: Iterable[tuple[str, Path]]) -> str:
    """Of a family's tables (as JSON) and its named files, of the code that serves it, and of the packages that this stands on."""
    # Builds of one version for other devices (2.11.0+cu128) are one version: devices differ anyway.
    versions = {package: version(package).partition("+")[0] for package in PACKAGES}
    contents = sorted((name, digest_of_file(file)) for name, file in [*files, *_sources()])
    return hashlib.sha256(json.dumps([tables, versions, contents], sort_keys=True).encode()).hexdigest()


def files_in(kind: str, folder: Path | None, *patterns: str) -> Iterator[tuple[str, Path]]:
    """The files of a folder (None: of none) that match one of the patterns, each named by its kind and its place there."""
    if folder is not None:
        yield from ((f"{kind}/{file.relative_to(folder).as_posix()}", file) for file in _matching(folder, patterns))


def digest_of_file(file: Path) -> str:
    """SHA-256 of the content, read once per process unless the file has changed since."""
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


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
