"""A family's fingerprint changes with all that its results depend on, and with nothing else."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aiprod_components.families import fingerprint, make_family
from aiprod_components.families.base import Family


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Weights, LoRAs and a language model: nobody loads them to take their fingerprint."""
    for name in ("weights/vae.safetensors", "weights/vae.json", "weights/loras/noir.safetensors", "loras/own.safetensors"):
        write(tmp_path / name, name)
    for name in ("llm/config.json", "llm/model.safetensors", "llm/tokenizer/merges.txt"):
        write(tmp_path / name, name)
    return tmp_path


def write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def family_in(folder: Path) -> Family:
    return make_family("miniature", weights=str(folder / "weights"), loras=str(folder / "loras"), prompt_enhancer=str(folder / "llm"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of the weights": lambda folder: write(folder / "weights/vae.safetensors", "Weights/vae.safetensors"),
    "a network's config": lambda folder: write(folder / "weights/vae.json", "weights/vae.jsoN"),
    "a byte of a LoRA with the weights": lambda folder: write(folder / "weights/loras/noir.safetensors", "weights/Loras/noir.safetensors"),
    "a byte of a LoRA of one's own": lambda folder: write(folder / "loras/own.safetensors", "loras/oWn.safetensors"),
    "another LoRA": lambda folder: write(folder / "loras/more.safetensors", "more"),
    "a LoRA's name": lambda folder: (folder / "loras/own.safetensors").rename(folder / "loras/mine.safetensors"),
    "a LoRA in the other folder": lambda folder: shutil.move(folder / "loras/own.safetensors", folder / "weights/loras/own.safetensors"),
    "a word of the language model": lambda folder: write(folder / "llm/tokenizer/merges.txt", "llm/tokenizer/merges.TXT"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_is_another_fingerprint(change: str, folders: Path):
    before = family_in(folders).fingerprint
    CHANGES[change](folders)
    assert family_in(folders).fingerprint != before


def test_where_the_files_are_and_when_they_came_does_not_matter(folders: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    files = sorted((file.relative_to(folders) for file in folders.rglob("*") if file.is_file()), reverse=True)
    for file in files:
        write(elsewhere / file, (folders / file).read_text())
    write(elsewhere / "weights/checkpoint.pt", "what training left behind")
    assert family_in(elsewhere).fingerprint == family_in(folders).fingerprint


def test_what_is_loaded_first_does_not_matter():
    one, other = make_family("miniature"), make_family("miniature")
    one.load("upsampler")
    first = one.fingerprint
    other.lora("canny")
    assert other.fingerprint == first == make_family("miniature").fingerprint


def test_every_family_has_its_own_and_a_change_of_its_tables_is_another(folders: Path):
    family = family_in(folders)
    others = [
        make_family("miniature"),
        make_family("aiprod", weights="random"),
        make_family("aiprod", weights=str(folders / "weights")),
        replace(family, name="small"),
        replace(family, chaining=replace(family.chaining, overlap=2)),
        replace(family, attention_blocks=6),
        replace(family, limits=replace(family.limits, max_prompt_bytes=501)),
        replace(family, components={name: part for name, part in family.components.items() if name != "preview"}),
        replace(family, prompt_enhancer=None),
        replace(family, lora_folder=None),
    ]
    assert len({family.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_other_code_is_another_fingerprint_but_that_of_training_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = tmp_path / "aiprod_components"
    for name in ("diffusion/samplers.py", "models/languages.toml", "training/trainer.py", "miniature/world.py"):
        write(code / name, name)
    monkeypatch.setattr(fingerprint, "CODE", code)
    before = make_family("miniature").fingerprint
    for name in ("training/trainer.py", "miniature/world.py"):
        write(code / name, "otherwise")
    assert make_family("miniature").fingerprint == before
    seen = {before}
    for name in ("diffusion/samplers.py", "models/languages.toml"):
        write(code / name, "otherwise")
        seen.add(make_family("miniature").fingerprint)
    assert len(seen) == 3


def test_another_version_of_torch_is_another_fingerprint_but_another_build_is_not(monkeypatch: pytest.MonkeyPatch):
    def taken_with(torch: str) -> str:
        monkeypatch.setattr(fingerprint, "version", lambda package: torch if package == "torch" else "1.0")
        return make_family("miniature").fingerprint

    assert taken_with("2.12.0+cpu") == taken_with("2.12.0+cu128") != taken_with("2.13.0+cpu")


def test_a_file_is_read_once_in_a_process_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "large.safetensors"
    write(file, "large")
    first = fingerprint.digest_of_file(file)
    with monkeypatch.context() as unread:
        unread.setattr(Path, "open", lambda *_: pytest.fail("it is read again"))
        assert fingerprint.digest_of_file(file) == first
    write(file, "Large")
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))  # clocks of file systems tick slowly
    assert fingerprint.digest_of_file(file) != first
