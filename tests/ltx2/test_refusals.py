"""every way in which a folder of LTX-2 can be wrong -> refused when the family is made, naming the file and the way out"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aiprod_components.errors import CheckpointError, ConfigError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import LocalStages
from tests.ltx2.conftest import FolderOf

Harm = Callable[[Path], None]
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALED_LAYER = "transformer_blocks.0.attn1.to_q"
UNLOADED = "which diffusers does not load; fetch the bfloat16 weights"


def without(name: str) -> Harm:
    def harm(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return harm


def holding(name: str, content: str | bytes) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return harm


def cut(name: str, keep: Callable[[bytes], int]) -> Harm:
    def harm(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: keep(content)])

    return harm


def header(content: bytes) -> int:
    """Where the weights begin."""
    return 8 + int.from_bytes(content[:8], "little")


def told(name: str, **fields: Any) -> Harm:
    """A JSON file that says this and that otherwise; an object keeps what else it says."""

    def harm(folder: Path) -> None:
        said = json.loads((folder / name).read_text())
        for key, value in fields.items():
            said[key] = said.get(key, {}) | value if isinstance(value, dict) else value
        (folder / name).write_text(json.dumps(said))

    return harm


def scaled(name: str, *endings: str) -> Harm:
    def harm(folder: Path) -> None:
        scales = {SCALED_LAYER + ending: torch.ones(1) for ending in endings}
        save_file(load_file(folder / name) | scales, folder / name)

    return harm


def in_parts(*, lost: str | None = None, misplaced: bool = False, index: bool = True) -> Harm:
    """The transformer in two files and an index, of which something is wrong."""

    def harm(folder: Path) -> None:
        place = folder / "transformer"
        weights = load_file(place / WEIGHTS)
        (place / WEIGHTS).unlink()
        files = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        of = {name: files[position % 2] for position, name in enumerate(sorted(weights))}
        for file in files:
            save_file({name: weights[name] for name in of if of[name] == file}, place / file)
        if misplaced:
            of["proj_in.weight"] = next(file for file in files if file != of["proj_in.weight"])
        if index:
            (place / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))
        if lost is not None:
            (place / lost).unlink()

    return harm


# What is wrong -> how it comes about, and what is said; {at} is the folder.
HARMS: dict[str, tuple[Harm, str]] = {
    "no index of the pipeline": (
        without("model_index.json"),
        "{at} has no model_index.json, so it is no diffusers folder; name the folder",
    ),
    **{
        f"no folder {part}": (without(part), f"{{at}} has no folder {part}; fetch that part of the checkpoint as well")
        for part in (
            *("scheduler", "tokenizer", "text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler"),
        )
    },
    **{
        f"no config of {part}": (without(f"{part}/config.json"), f"{{at}}/{part}/config.json is missing; fetch it")
        for part in ("text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler")
    },
    "no config of the scheduler": (without("scheduler/scheduler_config.json"), "{at}/scheduler/scheduler_config.json is missing; fetch it"),
    "no config of the tokenizer": (without("tokenizer/tokenizer_config.json"), "{at}/tokenizer/tokenizer_config.json is missing; fetch it"),
    "no words of the tokenizer": (
        without("tokenizer/tokenizer.json"),
        "{at}/tokenizer has neither tokenizer.json nor tokenizer.model; fetch the folder tokenizer of this checkpoint",
    ),
    "no weights": (without(f"vae/{WEIGHTS}"), "{at}/vae has no .safetensors file; fetch the weights of this part of the checkpoint"),
    "weights cut off in the header": (
        cut(f"transformer/{WEIGHTS}", lambda content: header(content) // 2),
        f"{{at}}/transformer/{WEIGHTS} is damaged or cut off (.*); fetch it again",
    ),
    "weights cut off before the header's length": (
        cut("text_encoder/model.safetensors", lambda _content: 5),
        "{at}/text_encoder/model.safetensors is damaged or cut off (.*); fetch it again",
    ),
    "weights cut off in the data": (
        cut(f"audio_vae/{WEIGHTS}", lambda content: len(content) - 1),
        f"{{at}}/audio_vae/{WEIGHTS} is damaged or cut off (.*); fetch it again",
    ),
    "weights cut off where the data begin": (
        cut(f"latent_upsampler/{WEIGHTS}", header),
        f"{{at}}/latent_upsampler/{WEIGHTS} is damaged or cut off (.*); fetch it again",
    ),
    "an empty file of weights": (cut(f"vocoder/{WEIGHTS}", lambda _content: 0), f"{{at}}/vocoder/{WEIGHTS} is damaged or cut off (.*)"),
    "a text file in place of weights": (
        holding(f"connectors/{WEIGHTS}", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        f"{{at}}/connectors/{WEIGHTS} is damaged or cut off (.*); fetch it again",
    ),
    "a part of the weights that is missing": (
        in_parts(lost="diffusion_pytorch_model-00002-of-00002.safetensors"),
        f"{{at}}/transformer/.*-00002-of-00002.safetensors is missing, which {WEIGHTS}.index.json names; fetch it",
    ),
    "a part of the weights of another checkpoint": (
        in_parts(misplaced=True),
        f"{{at}}/transformer/.*-of-00002.safetensors has no proj_in.weight, which {WEIGHTS}.index.json says it has; fetch both again",
    ),
    "no index of the parts": (
        in_parts(index=False),
        f"{{at}}/transformer has .*-00001-of-00002.safetensors, but neither {WEIGHTS} nor its index of parts, {WEIGHTS}.index.json",
    ),
    "an index without a map": (
        holding(f"vae/{WEIGHTS}.index.json", "{}"),
        f"{{at}}/vae/{WEIGHTS}.index.json is damaged (it has no weight_map); fetch it again",
    ),
    "damaged JSON": (
        holding("connectors/config.json", '{"caption_channels": 48'),
        "{at}/connectors/config.json is damaged (.*); fetch it again",
    ),
    "JSON that is no object": (
        holding("model_index.json", "[]"),
        "{at}/model_index.json is damaged (it is no JSON object); fetch it again",
    ),
    "JSON of other bytes": (
        holding("scheduler/scheduler_config.json", b"\xff\xfe{"),
        "{at}/scheduler/scheduler_config.json is damaged (.*); fetch it again",
    ),
    "a tokenizer that is cut off": (
        cut("tokenizer/tokenizer.json", lambda content: len(content) // 2),
        "{at}/tokenizer/tokenizer.json is damaged (.*); fetch it again",
    ),
    "an index that does not name a part": (
        told("model_index.json", vocoder=[None, None]),
        "{at}/model_index.json does not say what vocoder is; fetch it again",
    ),
    "another model": (
        told("model_index.json", _class_name="LTXPipeline"),
        "{at}/model_index.json is of a LTXPipeline, not of LTX-2; name a folder of LTX-2 2.0, 2.3 or 2.5",
    ),
    "another model's transformer": (
        told("transformer/config.json", _class_name="LTXVideoTransformer3DModel"),
        "{at}/transformer is a LTXVideoTransformer3DModel, not LTX-2's LTX2VideoTransformer3DModel; name a folder of LTX-2 2.0, 2.3 or 2.5",
    ),
    "scaled fp8 weights": (
        scaled(f"transformer/{WEIGHTS}", ".weight_scale", ".input_scale"),
        f"{{at}}/transformer/{WEIGHTS} holds scaled fp8 weights ({SCALED_LAYER}.weight_scale), {UNLOADED}",
    ),
    "NVFP4 weights": (
        scaled("text_encoder/model.safetensors", ".weight_scale", ".weight_scale_2"),
        f"{{at}}/text_encoder/model.safetensors holds NVFP4 weights ({SCALED_LAYER}.weight_scale_2), {UNLOADED}",
    ),
    "a text encoder of another width": (
        told("text_encoder/config.json", text_config={"hidden_size": 96}),
        "{at}/text_encoder (width 96) does not belong to {at}/connectors (width 48); fetch both folders from one checkpoint of LTX-2",
    ),
    "a text encoder of more layers": (
        told("text_encoder/config.json", text_config={"num_hidden_layers": 7}),
        "{at}/text_encoder (width 8) does not belong to {at}/connectors (width 3); fetch both folders from one checkpoint of LTX-2",
    ),
    "connectors of another width": (
        told("connectors/config.json", video_connector_num_attention_heads=8),
        "{at}/connectors (width 1..) does not belong to {at}/transformer (width ..); fetch both folders from one checkpoint of LTX-2",
    ),
    "connectors of another width of sound": (
        told("connectors/config.json", audio_connector_num_attention_heads=8),
        "{at}/connectors (width .*) does not belong to {at}/transformer (width ..); fetch both folders from one checkpoint of LTX-2",
    ),
}

# A version, the part that comes from another, which that is, and which it might as well be.
STRANGERS = [
    *(("2.0", part, "2.3", "2.3 or 2.5") for part in ("connectors", "vae", "vocoder")),
    *(("2.3", part, "2.0", "2.0") for part in ("connectors", "vae", "vocoder")),
    *(("2.5", part, "2.0", "2.0") for part in ("connectors", "vae", "vocoder")),
    *((version, "text_encoder", "2.5", "2.5") for version in ("2.0", "2.3")),
    ("2.5", "text_encoder", "2.3", "2.0 or 2.3"),
    ("2.5", "transformer_full", "2.3", "2.3"),
]


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        make_family("ltx2", weights=str(folder), **options)
    return caught.value.message


def says(message: str, wanted: str) -> bool:
    """`.` stands for any character, and `.*` for any text."""
    pattern = re.escape(wanted).replace(r"\.\*", ".*").replace(r"\.", ".")
    return re.match(pattern, message) is not None


@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_is_refused_for(harm: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    do, said = HARMS[harm]
    do(folder)
    message = refusal(folder)
    assert says(message, said.format(at=folder)), message


@pytest.mark.parametrize(("version", "part", "other", "named"), STRANGERS)
def test_parts_of_two_versions_are_refused_naming_both(
    version: str, part: str, other: str, named: str, copy_of: FolderOf, folder_of: FolderOf
):
    folder = copy_of(version)
    shutil.rmtree(folder / part)
    shutil.copytree(folder_of(other) / part.removesuffix("_full"), folder / part)
    assert refusal(folder) == (
        f"{folder / 'transformer'} ({version}) does not belong to {folder / part} ({named}); "
        "fetch both folders from one checkpoint of LTX-2"
    )


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_a_folder_with_nothing_wrong_is_taken_whether_or_not_in_parts(version: str, copy_of: FolderOf):
    folder = copy_of(version)
    in_parts()(folder)
    assert make_family("ltx2", weights=str(folder)).title.startswith(f"LTX-2 {version}")


@pytest.mark.parametrize(
    ("endings", "said"),
    [
        ((), "{file} is a single file; turn it into a diffusers folder with: aiprod convert {file} FOLDER"),
        ((".weight_scale",), f"{{file}} holds scaled fp8 weights (.*), {UNLOADED}"),
        (
            (".weight_scale_2", ".weight_scale"),
            f"{{file}} holds NVFP4 weights (.*), {UNLOADED}",
        ),
    ],
    ids=["in bfloat16", "in scaled fp8", "in NVFP4"],
)
def test_a_single_file_is_refused(endings: tuple[str, ...], said: str, tmp_path: Path):
    file = tmp_path / "ltx-2-19b-dev.safetensors"
    save_file({f"model.diffusion_model.{SCALED_LAYER}{ending}": torch.ones(1) for ending in (".weight", *endings)}, file)
    message = refusal(file)
    assert says(message, said.format(file=file)), message


def test_no_folder_at_all_is_refused(tmp_path: Path):
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} has no model_index.json, so it is no diffusers folder; name the folder that holds it"
    )
    with pytest.raises(CheckpointError, match="ships no weights: name a diffusers folder"):
        make_family("ltx2")


def test_what_is_not_known_is_refused_with_what_is(folder_of: FolderOf):
    assert refusal(folder_of("2.3"), variant="turbo") == "variant 'turbo' of ltx2 is unknown; the variants are dev, distilled"
    assert refusal(folder_of("2.3"), precision="int8").startswith("precision 'int8' of ltx2 is unknown; ")


def test_the_guided_transformer_is_refused_where_only_the_distilled_one_is(copy_of: FolderOf):
    folder = copy_of("2.5")
    shutil.rmtree(folder / "transformer_full")
    assert refusal(folder, variant="dev") == (
        f"{folder} has the distilled transformer only: fetch transformer_full as well, or leave out variant: dev"
    )
    assert make_family("ltx2", weights=str(folder)).is_distilled


def test_a_guided_checkpoint_without_its_distilled_lora_is_refused_where_the_refiner_starts(folder_of: FolderOf):
    family = make_family("ltx2", weights=str(folder_of("2.3")), variant="dev", precision="float32")
    assert isinstance(family, LTX2Family)
    with pytest.raises(CheckpointError) as caught:
        LocalStages(family, device=torch.device("cpu"))["refiner"]
    assert caught.value.message == (
        f"the refiner of a guided LTX-2 needs its distilled LoRA; put it at {folder_of('2.3') / 'loras/distilled.safetensors'}, "
        "or serve a distilled checkpoint instead"
    )


@pytest.mark.parametrize(("version", "variant"), [("2.3", "distilled"), ("2.5", "dev"), ("2.5", "distilled")])
def test_where_a_distilled_transformer_is_no_lora_is_needed(version: str, variant: str, folder_of: FolderOf):
    family = make_family("ltx2", weights=str(folder_of(version)), variant=variant)
    assert isinstance(family, LTX2Family) and family.refiner_lora is None


def test_other_families_have_neither_variants_nor_precisions():
    with pytest.raises(CheckpointError, match="family miniature has one form only: leave out variant, precision"):
        make_family("miniature", variant="dev", precision="float32")
