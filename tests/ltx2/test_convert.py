"""a tiny checkpoint of 2.0 under its original names, in one file -> `aiprod convert` -> the folder that it was, or why not"""

import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from aiprod_client.cli import app
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.ltx2_convert import convert
from tests.ltx2.conftest import FolderOf

Weights = dict[str, Tensor]
SourceOf = Callable[..., Path]

ORIGINAL: dict[str, list[tuple[str, str | Callable[[re.Match[str]], str]]]] = {
    "model.diffusion_model.|transformer": [
        (r"^audio_proj_in\.", "audio_patchify_proj."),
        (r"^proj_in\.", "patchify_proj."),
        (r"^audio_time_embed\.", "audio_adaln_single."),
        (r"^time_embed\.", "adaln_single."),
        (r"^av_cross_attn_video_scale_shift\.", "av_ca_video_scale_shift_adaln_single."),
        (r"^av_cross_attn_video_a2v_gate\.", "av_ca_a2v_gate_adaln_single."),
        (r"^av_cross_attn_audio_scale_shift\.", "av_ca_audio_scale_shift_adaln_single."),
        (r"^av_cross_attn_audio_v2a_gate\.", "av_ca_v2a_gate_adaln_single."),
        (r"video_a2v_cross_attn_scale_shift_table", "scale_shift_table_a2v_ca_video"),
        (r"audio_a2v_cross_attn_scale_shift_table", "scale_shift_table_a2v_ca_audio"),
        (r"norm_q", "q_norm"),
        (r"norm_k", "k_norm"),
    ],
    "vae.|vae": [
        (r"^encoder\.down_blocks\.(\d)\.resnets", lambda found: f"encoder.down_blocks.{2 * int(found[1])}.res_blocks"),
        (r"^encoder\.down_blocks\.(\d)\.downsamplers\.0", lambda found: f"encoder.down_blocks.{2 * int(found[1]) + 1}"),
        (r"^encoder\.mid_block\.resnets", "encoder.down_blocks.8.res_blocks"),
        (r"^decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda found: f"decoder.up_blocks.{2 * int(found[1]) + 1}"),
        (r"^decoder\.up_blocks\.(\d)\.resnets", lambda found: f"decoder.up_blocks.{2 * int(found[1]) + 2}.res_blocks"),
        (r"^decoder\.mid_block\.resnets", "decoder.up_blocks.0.res_blocks"),
        (r"^latents_mean$", "per_channel_statistics.mean-of-means"),
        (r"^latents_std$", "per_channel_statistics.std-of-means"),
    ],
    "audio_vae.|audio_vae": [
        (r"^latents_mean$", "per_channel_statistics.mean-of-means"),
        (r"^latents_std$", "per_channel_statistics.std-of-means"),
    ],
    "model.diffusion_model.|connectors": [
        (r"^(video|audio)_connector\.", r"\1_embeddings_connector."),
        (r"transformer_blocks", "transformer_1d_blocks"),
        (r"norm_q", "q_norm"),
        (r"norm_k", "k_norm"),
    ],
    "vocoder.|vocoder": [(r"^upsamplers", "ups"), (r"^resnets", "resblocks"), (r"^conv_in", "conv_pre"), (r"^conv_out", "conv_post")],
}
"""How the names of a part begin in the single file, and the part -> how its names are made."""


def weights_of(folder: Path) -> Weights:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def original(folder: Path) -> Weights:
    """The weights of a diffusers folder under their original names; text_proj_in alone has none here."""
    made: Weights = {}
    for place, rules in ORIGINAL.items():
        prefix, part = place.split("|")
        for name, tensor in weights_of(folder / part).items():
            renamed = name
            for pattern, other in rules:
                renamed = re.sub(pattern, other, renamed)
            if "text_proj_in" not in renamed:
                made[prefix + renamed] = tensor
    # What else is in the published file, and in no part of a folder.
    made["vae.per_channel_statistics.mean-of-stds"] = torch.ones(128)
    made["vae.per_channel_statistics.channel"] = torch.arange(128.0)
    return made


@pytest.fixture
def single(folder_of: FolderOf, tmp_path: Path) -> SourceOf:
    """A single file of a version, changed as wished."""

    def write(name: str = "ltx-2-dev.safetensors", *, version: str = "2.0", change: Callable[[Weights], Weights] | None = None) -> Path:
        weights = original(folder_of(version))
        file = tmp_path / name
        save_file(weights if change is None else change(weights), file, metadata={"format": "pt"})
        return file

    return write


@pytest.fixture
def base(folder_of: FolderOf, tmp_path: Path) -> Path:
    """A folder with all but what is in the single file."""
    folder = shutil.copytree(folder_of("2.0"), tmp_path / "base")
    for part in ("transformer", "vae", "audio_vae"):
        (folder / part / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "LICENSE").write_text("The licence of this checkpoint\n")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)], env={"COLUMNS": "200"})


def refused(result: Result, *, code: int) -> str:
    assert result.exit_code == code, result.output
    *_, line = result.stderr.splitlines()
    assert line.startswith("aiprod: ")
    return line.removeprefix("aiprod: ")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_single_file_becomes_the_folder_that_it_was(single: SourceOf, base: Path, folder_of: FolderOf, tmp_path: Path):
    before = left(tmp_path)
    result = run(single(), tmp_path / "made", "--from", base)
    assert result.exit_code == 0, result.output
    assert left(tmp_path) == sorted([*before, "ltx-2-dev.safetensors", "made"])
    parts = {path.name for path in folder_of("2.0").iterdir()}
    assert {path.name for path in (tmp_path / "made").iterdir()} == parts | {"LICENSE"}
    for part in sorted(parts - {"model_index.json"}):
        wanted, got = weights_of(folder_of("2.0") / part), weights_of(tmp_path / "made" / part)
        assert wanted.keys() == got.keys(), part
        assert all(torch.equal(wanted[name], got[name]) and wanted[name].dtype == got[name].dtype for name in wanted), part
    family = make_family("ltx2", weights=str(tmp_path / "made"))
    assert isinstance(family, LTX2Family)
    assert (family.version.name, family.is_distilled, family.licence) == ("2.0", False, "The licence of this checkpoint")
    for network in ("transformer", "vae", "audio_vae", "connectors", "vocoder", "text_encoder", "latent_upsampler"):
        assert sum(1 for _ in family.load(network).parameters()) > 0
    assert f"its refiner needs the distilled LoRA at {tmp_path / 'made/loras/distilled.safetensors'}" in result.stderr


def test_weights_keep_their_precision(single: SourceOf, base: Path, tmp_path: Path):
    """Those that are compared may have another."""
    file = single(change=lambda weights: {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()})
    assert run(file, tmp_path / "made", "--from", base).exit_code == 0
    for part in ("transformer", "vae", "audio_vae"):
        assert {tensor.dtype for tensor in weights_of(tmp_path / "made" / part).values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "options", "variant"),
    [
        ("ltx-2-19b-distilled.safetensors", [], "distilled"),
        ("mine.safetensors", ["--variant", "distilled"], "distilled"),
        ("mine.safetensors", ["--variant", "dev"], "dev"),
    ],
)
def test_a_distilled_file_becomes_a_folder_that_is_known_as_distilled(
    name: str, options: list[str], variant: str, single: SourceOf, base: Path, tmp_path: Path
):
    result = run(single(name), tmp_path / "made", "--from", base, *options)
    assert result.exit_code == 0, result.output
    family = make_family("ltx2", weights=str(tmp_path / "made"))
    assert family.title == f"LTX-2 2.0, {variant}, bfloat16" and family.is_distilled == (variant == "distilled")


def test_a_part_that_the_file_has_not_comes_from_the_folder_like_the_loras(single: SourceOf, folder_of: FolderOf, tmp_path: Path):
    base = shutil.copytree(folder_of("2.0"), tmp_path / "base")
    shutil.copytree(folder_of("2.0").parent / "loras", base / "loras")
    file = single(change=lambda weights: {name: tensor for name, tensor in weights.items() if not name.startswith("vae.")})
    result = run(file, tmp_path / "made", "--from", base, "--version", "2.0")
    assert result.exit_code == 0, result.output
    assert "needs the distilled LoRA" not in result.stderr
    assert weights_of(tmp_path / "made/vae").keys() == weights_of(base / "vae").keys()
    assert (tmp_path / "made/loras/distilled.safetensors").is_file()


def test_a_folder_that_is_there_stays_as_it_is(single: SourceOf, base: Path, tmp_path: Path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    said = refused(run(single(), tmp_path / "made", "--from", base), code=2)
    assert said == f"{tmp_path / 'made'} is there already and stays as it is; name a folder that is not"
    assert left(tmp_path / "made") == ["mine.txt"]


def test_a_link_that_leads_nowhere_is_there_already(single: SourceOf, base: Path, tmp_path: Path):
    (tmp_path / "made").symlink_to(tmp_path / "gone")
    said = refused(run(single(), tmp_path / "made", "--from", base), code=2)
    assert said == f"{tmp_path / 'made'} is there already and stays as it is; name a folder that is not"
    assert (tmp_path / "made").is_symlink()


@pytest.mark.parametrize("place", ["made", "text_encoder/made", "vae/../vocoder/made"])
def test_a_folder_inside_of_the_one_that_it_is_made_from_is_refused(place: str, single: SourceOf, base: Path):
    said = refused(run(single(), base / place, "--from", base), code=2)
    assert said == f"{base / place} is inside of {base}, which it is made from; name a folder outside of it"


def test_what_is_copied_from_where_nobody_may_write_can_be_written_to(single: SourceOf, base: Path, tmp_path: Path):
    (base / "loras/more").mkdir(parents=True)
    paths = sorted(base.rglob("*"))
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert run(single(), tmp_path / "made", "--from", base).exit_code == 0
    finally:
        for path in paths:
            path.chmod(0o755)
    assert {path.name for path in (tmp_path / "made").rglob("*") if not path.stat().st_mode & stat.S_IWUSR} == set()
    assert (tmp_path / "made/loras/more").is_dir()


@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_later_versions_are_refused_with_the_script_that_converts_them(version: str, folder_of: FolderOf, base: Path, tmp_path: Path):
    transformer = weights_of(folder_of(version) / "transformer")
    renamed = {name.replace("av_cross_attn_video_a2v_gate", "av_ca_a2v_gate_adaln_single"): tensor for name, tensor in transformer.items()}
    file = tmp_path / "ltx-2-dev.safetensors"
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in renamed.items()}, file)
    said = refused(run(file, tmp_path / "made", "--from", base), code=1)
    assert said == (
        f"{file} is of LTX-2 {version}, and the diffusers package translates the names of 2.0 alone; convert it with "
        f"scripts/convert_ltx2_to_diffusers.py of huggingface/diffusers (--version {version}), or fetch the diffusers folder of {version}"
    )
    assert (
        refused(run(file, tmp_path / "made", "--version", "2.0"), code=2) == f"{file} is of LTX-2 {version}, not 2.0; leave out --version"
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("scales", "kind"),
    [
        ([".weight_scale", ".input_scale"], "scaled fp8"),
        ([".scale_weight"], "scaled fp8"),
        ([".weight_scale", ".weight_scale_2"], "NVFP4"),
    ],
)
def test_scaled_formats_are_refused_by_name(scales: list[str], kind: str, single: SourceOf, base: Path, tmp_path: Path):
    layer = "model.diffusion_model.transformer_blocks.0.attn1.to_q"
    file = single(change=lambda weights: weights | {layer + ending: torch.ones(1) for ending in scales})
    said = refused(run(file, tmp_path / "made", "--from", base), code=1)
    assert said.startswith(f"{file} holds {kind} weights ({layer}") and said.endswith("diffusers does not load; fetch the bfloat16 weights")


def test_without_a_folder_what_is_lacking_is_said(single: SourceOf, tmp_path: Path):
    said = refused(run(file := single(), tmp_path / "made"), code=2)
    assert (
        said == f"{file} lacks scheduler, tokenizer, text_encoder, connectors, vocoder, latent_upsampler; say --from FOLDER that has them"
    )


def test_a_folder_of_another_version_is_refused(single: SourceOf, folder_of: FolderOf, tmp_path: Path):
    said = refused(run(file := single(), tmp_path / "made", "--from", folder_of("2.3")), code=1)
    assert said == f"{folder_of('2.3')} is of LTX-2 2.3, and {file} of 2.0; name a diffusers folder of LTX-2 2.0"


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("model_index.json", "{base} has no model_index.json, so it is no diffusers folder; name one of LTX-2 2.0"),
        ("text_encoder", "{base} has no folder text_encoder, nor has {file}; fetch that part of the folder as well"),
        ("vae/config.json", "{base}/vae/config.json is missing; fetch it"),
        ("vocoder/diffusion_pytorch_model.safetensors", "{base}/vocoder has no .safetensors file; fetch the weights of this part"),
        ("tokenizer/tokenizer.json", "{base}/tokenizer has neither tokenizer.json nor tokenizer.model; fetch the folder tokenizer"),
    ],
)
def test_a_folder_that_lacks_something_too_is_refused(lost: str, said: str, single: SourceOf, base: Path, tmp_path: Path):
    path, file = base / lost, single()
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert refused(run(file, tmp_path / "made", "--from", base), code=1).startswith(said.format(base=base, file=file))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("part", ["connectors", "vocoder"])
def test_parts_of_another_checkpoint_are_refused(part: str, single: SourceOf, base: Path, tmp_path: Path):
    """Their names are not translated, so they come from the folder: that must have the same."""
    weights = base / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    said = refused(run(file := single(), tmp_path / "made", "--from", base), code=1)
    assert said.startswith(f"{base / part} is of another checkpoint than {file}, whose ")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda name, tensor: None if name.endswith("blocks.1.attn2.to_v.bias") else tensor, id="missing"),
        pytest.param(lambda name, tensor: tensor[:1] if name.endswith("blocks.1.attn2.to_v.bias") else tensor, id="of another width"),
    ],
)
def test_a_file_that_its_config_does_not_describe_leaves_nothing_behind(
    change: Callable[[str, Tensor], Tensor | None], single: SourceOf, base: Path, tmp_path: Path
):
    changed = lambda weights: {name: new for name, tensor in weights.items() if (new := change(name, tensor)) is not None}  # noqa: E731
    file = single(change=changed)
    said = refused(run(file, tmp_path / "made", "--from", base), code=1)
    assert said.startswith(f"the transformer in {file} is not what {base / 'transformer/config.json'} describes")
    assert "transformer_blocks.1.attn2.to_v.bias" in said
    assert left(tmp_path) == ["base", file.name]


def test_what_cannot_be_a_checkpoint_is_bad_input(single: SourceOf, base: Path, tmp_path: Path):
    assert refused(run(tmp_path / "no.safetensors", tmp_path / "made"), code=2).endswith("is not there; name a .safetensors file")
    assert "serve a diffusers folder as it is" in refused(run(base, tmp_path / "made"), code=2)
    (tmp_path / "ltx-2-dev.gguf").write_bytes(b"GGUF")
    assert "is no .safetensors file" in refused(run(tmp_path / "ltx-2-dev.gguf", tmp_path / "made"), code=2)
    unsaid = single("mine.safetensors")
    assert "add --variant dev or distilled" in refused(run(unsaid, tmp_path / "made", "--from", base), code=2)
    assert "the variants are dev, distilled" in refused(run(unsaid, tmp_path / "made", "--from", base, "--variant", "fast"), code=2)
    assert "does not exist; make it first" in refused(run(single(), tmp_path / "no/made", "--from", base), code=2)


def test_a_file_that_is_cut_off_or_of_another_model_is_refused(single: SourceOf, base: Path, tmp_path: Path):
    file = single()
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} is damaged or cut off" in refused(run(file, tmp_path / "made", "--from", base), code=1)
    save_file({"model.diffusion_model.patchify_proj.weight": torch.ones(1)}, file)
    assert f"{file} holds no transformer of LTX-2" in refused(run(file, tmp_path / "made", "--from", base), code=1)


def test_a_disk_that_is_full_is_said_before_anything_is_written(
    single: SourceOf, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    said = refused(run(single(), tmp_path / "made", "--from", base), code=2)
    assert re.fullmatch(rf"{tmp_path}/made needs 0\.\d GB, and 0\.0 GB are free; make room", said)
    assert left(tmp_path) == ["base", "ltx-2-dev.safetensors"]


def test_an_interruption_leaves_nothing_behind(single: SourceOf, base: Path, tmp_path: Path):
    told: list[tuple[str, int, int]] = []

    def interrupt(part: str, done: int, total: int) -> None:
        told.append((part, done, total))
        if part == "vae":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(single(), tmp_path / "made", base=base, variant="dev", watch=interrupt)
    assert left(tmp_path) == ["base", "ltx-2-dev.safetensors"]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert 0 == told[0][1] < told[-1][1] < told[-1][2]
