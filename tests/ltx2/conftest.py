"""version -> its tiny checkpoint folder, written once a session and only if asked for"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from tests.ltx2.desk import Desk
from tests.ltx2.folders import make_folder, make_lora

# Beside each folder; what the file beside each says of it.
LORAS: dict[str, dict[str, Any] | None] = {
    "distilled": None,
    "edges": {"control": "canny"},
    "dolly": None,
    "pose": {"control": "video", "downscale": 2},
}
FolderOf = Callable[[str], Path]


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower with two; and as many for both sides of a comparison, or sums are made in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """`folder_of("2.3")`: to be read, not written to."""

    @cache
    def folder(version: str) -> Path:
        made = make_folder(tmp_path_factory.mktemp("ltx2") / version, version)
        (made.parent / "loras").mkdir()
        for seed, (name, said) in enumerate(LORAS.items(), start=1):
            make_lora(made.parent / f"loras/{name}.safetensors", made, seed=seed)
            if said is not None:
                (made.parent / f"loras/{name}.json").write_text(json.dumps(said))
        return made

    return folder


@pytest.fixture
def copy_of(folder_of: FolderOf, tmp_path: Path) -> FolderOf:
    """A folder to do harm to."""
    return lambda version: shutil.copytree(folder_of(version), tmp_path / version)


@pytest.fixture(scope="session")
def desk(folder_of: FolderOf) -> Callable[..., Desk]:
    """`desk("2.3")`: in float32, with its LoRAs."""

    @cache
    def made(version: str, **options: Any) -> Desk:
        folder = folder_of(version)
        family = make_family("ltx2", weights=str(folder), loras=str(folder.parent / "loras"), precision="float32", **options)
        return Desk(cast(LTX2Family, family))

    return made
