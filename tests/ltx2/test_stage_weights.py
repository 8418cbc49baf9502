"""a folder laid out as the checkpoint's, with a stage's parts in it -> the family with them; or why they are another checkpoint's"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aiprod_components.errors import CheckpointError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.stages import stages_of
from tests.ltx2.conftest import FolderOf


def family_of(folder: Path) -> LTX2Family:
    made = make_family("ltx2", weights=str(folder), precision="float32")
    assert isinstance(made, LTX2Family)
    return made


def weights_in(part: Path) -> Path:
    return next(part.glob("*.safetensors"))


@pytest.fixture
def other(folder_of: FolderOf, tmp_path: Path) -> Path:
    """The transformer alone, with other numbers."""
    part = shutil.copytree(folder_of("2.3") / "transformer", tmp_path / "other" / "transformer")
    held = load_file(file := weights_in(part))
    save_file({name: tensor * 1.01 for name, tensor in held.items()}, file)
    return part.parent


def test_a_stage_computes_with_the_parts_of_its_folder(folder_of: FolderOf, other: Path) -> None:
    family = family_of(folder_of("2.3"))
    given = with_weights(family, "denoiser", other)
    ours, theirs = (each.load("transformer").state_dict() for each in (given, family))
    name = next(name for name, tensor in ours.items() if tensor.ndim == 2 and tensor.any())
    assert torch.allclose(ours[name], theirs[name] * 1.01) and not torch.equal(ours[name], theirs[name])
    assert given.fingerprint != family.fingerprint
    assert given.config("vae") == family.config("vae") and given.tokenizer() is not None


def test_the_same_files_elsewhere_are_the_same_weights_for_every_stage(folder_of: FolderOf, tmp_path: Path) -> None:
    family = family_of(folder_of("2.3"))
    copied = shutil.copytree(folder_of("2.3"), tmp_path / "copied")
    for stage in stages_of(family):
        given = with_weights(family, stage, copied)
        assert given.replaced and given.fingerprint == family.fingerprint, stage


def test_a_part_of_another_version_is_refused(folder_of: FolderOf) -> None:
    with pytest.raises(CheckpointError, match=r"transformer/config.json is of another network than the family's: .* and .* there;"):
        with_weights(family_of(folder_of("2.3")), "denoiser", folder_of("2.0"))


def test_a_part_that_is_cut_off_is_refused(folder_of: FolderOf, other: Path) -> None:
    file = weights_in(other / "transformer")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{file.name} is damaged or cut off"):
        with_weights(family_of(folder_of("2.3")), "denoiser", other)


def test_a_folder_without_the_stage_s_part_is_refused(folder_of: FolderOf, other: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vae/config.json is missing, which stage vae_decoder computes with"):
        with_weights(family_of(folder_of("2.3")), "vae_decoder", other)
