"""version -> its tiny checkpoint folder, written once a session and only if asked for"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.ltx2.folders import make_folder, make_lora

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """`folder_of("2.3")`: to be read, not written to."""

    @cache
    def folder(version: str) -> Path:
        made = make_folder(tmp_path_factory.mktemp("ltx2") / version, version)
        (made.parent / "loras").mkdir()
        make_lora(made.parent / "loras/distilled.safetensors", made)
        return made

    return folder
