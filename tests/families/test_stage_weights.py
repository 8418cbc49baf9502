"""a stage's own folder of weights -> the family with them; or which file is at fault, and the way out"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aiprod_components.errors import CheckpointError
from aiprod_components.families import make_family
from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.stages import ALWAYS
from tests.families.other_weights import perturbed

FAMILY = make_family("miniature")


def test_a_stage_computes_with_the_networks_of_its_folder_and_with_the_family_s_where_there_is_none(tmp_path: Path) -> None:
    given = with_weights(FAMILY, "denoiser", perturbed(tmp_path / "other", "denoiser"))
    ours, theirs, shipped = (family.load("denoiser").state_dict() for family in (given, given, FAMILY))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and any(not torch.equal(ours[name], shipped[name]) for name in ours)
    assert given.has("preview") and given.folder_of("preview") == SHIPPED_WEIGHTS
    assert given.fingerprint != FAMILY.fingerprint


def test_a_stage_takes_nothing_of_its_folder_that_it_does_not_compute_with(tmp_path: Path) -> None:
    both = perturbed(perturbed(tmp_path / "other", "denoiser"), "vae")
    assert with_weights(FAMILY, "denoiser", both).folder_of("vae") == SHIPPED_WEIGHTS
    assert with_weights(FAMILY, "vae_decoder", both).folder_of("denoiser") == SHIPPED_WEIGHTS


def test_fingerprints_go_by_what_the_files_hold_and_not_by_where_they_lie(tmp_path: Path) -> None:
    copied = shutil.copytree(SHIPPED_WEIGHTS, tmp_path / "copied")
    assert all(with_weights(FAMILY, stage, copied).fingerprint == FAMILY.fingerprint for stage in ALWAYS)
    one, same, other = (perturbed(tmp_path / name, "denoiser", seed=seed) for name, seed in (("one", 1), ("same", 1), ("other", 2)))
    first, again, second = (with_weights(FAMILY, "denoiser", folder).fingerprint for folder in (one, same, other))
    assert first == again != second


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def reshape(file: Path) -> None:
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, file)


def rename(file: Path) -> None:
    tensors = load_file(file)
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, file)


def resize(file: Path) -> None:
    described = json.loads(file.read_text())
    described["config"]["heads"] *= 2
    file.write_text(json.dumps(described))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder that is not there": (shutil.rmtree, "other is no folder; name one with the denoiser of stage denoiser"),
    "a file instead of a folder": (lambda f: [shutil.rmtree(f), f.write_bytes(b"")], "other is no folder"),
    "no weights": (lambda f: (f / "denoiser.safetensors").unlink(), "denoiser.safetensors is missing, which stage denoiser computes with"),
    "no description": (lambda f: (f / "denoiser.json").unlink(), "denoiser.json cannot be read"),
    "weights that are cut off": (lambda f: cut(f / "denoiser.safetensors"), "denoiser.safetensors is not a whole safetensors file"),
    "weights of another shape": (lambda f: reshape(f / "denoiser.safetensors"), "denoiser.safetensors is of another network"),
    "weights by other names": (lambda f: rename(f / "denoiser.safetensors"), "denoiser.safetensors is of another network"),
    "another config": (lambda f: resize(f / "denoiser.json"), "heads is 8, and 4 there"),
    "another network": (
        lambda f: [shutil.copy(SHIPPED_WEIGHTS / f"vae{kind}", f / f"denoiser{kind}") for kind in (".json", ".safetensors")],
        "denoiser.json describes a VideoVAE, not a HybridBackbone; name another folder",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_take_the_others_place_are_refused_by_their_headers(fault: str, tmp_path: Path) -> None:
    folder = perturbed(tmp_path / "other", "denoiser")
    harm, message = FAULTS[fault]
    harm(folder)
    with pytest.raises(CheckpointError) as caught:
        with_weights(FAMILY, "denoiser", folder)
    assert message in caught.value.message and ";" in caught.value.message


def test_a_stage_without_weights_in_the_family_s_folder_has_none_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="prompt_enhancer of miniature has no weights of its own"):
        with_weights(FAMILY, "prompt_enhancer", tmp_path)
