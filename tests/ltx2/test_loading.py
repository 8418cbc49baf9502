"""a folder whose files do not hold what its configs say, or that asks for more than weights -> refused, before a number is computed"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiprod_components.errors import CheckpointError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import VERSIONS
from tests.ltx2.test_refusals import WEIGHTS, in_parts, refusal, told

PARTS = ("text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler")
AGAIN = "fetch its weights and its config.json again, from one checkpoint"
Weights = dict[str, Tensor]


def file_of(folder: Path, part: str) -> Path:
    return folder / part / ("model.safetensors" if part == "text_encoder" else WEIGHTS)


def change(folder: Path, part: str, do: Callable[[Weights], Any]) -> None:
    weights = load_file(file_of(folder, part))
    do(weights)
    save_file(weights, file_of(folder, part), metadata={"format": "pt"})


def needed(weights: Weights) -> str:
    """The name of one that results depend on."""
    names = [name for name in weights if name.endswith(".weight")]
    return max([name for name in names if "language_model" in name] or names)


def family_of(folder: Path) -> LTX2Family:
    family = make_family("ltx2", weights=str(folder))
    assert isinstance(family, LTX2Family)
    return family


def not_loaded(folder: Path, part: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        family_of(folder).load(part)
    return caught.value.message


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_whole_is_loaded_in_parts_too(version: str, copy_of: FolderOf):
    folder = copy_of(version)
    in_parts()(folder)
    for part in (*PARTS, *(["transformer_full"] if version == "2.5" else [])):
        assert not any(parameter.is_meta for parameter in family_of(folder).load(part).parameters()), part


@pytest.mark.parametrize("version", VERSIONS)
def test_a_part_that_lacks_one_tensor_is_refused_naming_it(version: str, copy_of: FolderOf):
    folder = copy_of(version)
    for part in PARTS:
        name = needed(load_file(file_of(folder, part)))
        change(folder, part, lambda weights, name=name: weights.pop(name))
        # Gemma's names in files are older than those in its class.
        said = not_loaded(folder, part).replace("model.language_model.", "language_model.model.")
        named = name.replace("model.language_model.", "language_model.model.")
        assert said == f"{folder / part} lacks {named}, which would be random numbers; {AGAIN}"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_too_many_is_refused_naming_it(part: str, copy_of: FolderOf):
    folder, name = copy_of("2.3"), "model.language_model.layers.2.mlp.weight" if part == "text_encoder" else "more.weight"
    change(folder, part, lambda weights: weights.update({name: torch.ones(2)}))
    assert not_loaded(folder, part) == f"{folder / part} holds {name}, for which its config.json has no place; {AGAIN}"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_of_another_shape_is_refused(part: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    change(folder, part, lambda weights: weights.update({needed(weights): torch.ones(3)}))
    assert not_loaded(folder, part).startswith(f"{folder / part} cannot be loaded (")


def test_of_the_text_encoder_only_what_reads_text_counts(copy_of: FolderOf):
    """Eyes may be missing, heads too many, and numbers of places lie about, as in folders that others trimmed."""
    folder = copy_of("2.3")

    def trim(weights: Weights) -> None:
        for name in [name for name in weights if "vision_tower" in name]:
            del weights[name]
        weights |= {"score.weight": torch.ones(2, 2), "model.vision_tower.embeddings.position_ids": torch.arange(4)}

    change(folder, "text_encoder", trim)
    assert family_of(folder).load("text_encoder").get_parameter("lm_head.weight").std() > 0


@pytest.mark.parametrize("said", [1, 3])
@pytest.mark.parametrize("part", ["transformer", "transformer_full"])
def test_another_number_of_blocks_than_there_are_is_refused_at_start(part: str, said: int, copy_of: FolderOf):
    folder = copy_of("2.5")
    told(f"{part}/config.json", num_layers=said)(folder)
    assert refusal(folder) == (
        f"{folder / part / 'config.json'} says that there are {said} blocks (num_layers), and its weights have 2; "
        "fetch both again, from one checkpoint"
    )


@pytest.mark.parametrize(("dtype", "precision"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.bool, "BOOL")])
@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_no_wide_floats_are_refused_at_start(part: str, dtype: torch.dtype, precision: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    name = needed(load_file(file_of(folder, part)))
    change(folder, part, lambda weights: weights.update({name: weights[name].to(dtype)}))
    assert refusal(folder) == (
        f"{file_of(folder, part)} holds {precision} weights ({name}), which mean nothing as they are; fetch the bfloat16 weights"
    )


@pytest.mark.parametrize("fields", [{"_attn_implementation": "kernels-community/x"}, {"attn_implementation": "flash_attention_2"}], ids=str)
def test_the_attention_that_a_config_asks_for_is_not_taken(fields: dict[str, str], copy_of: FolderOf):
    folder = copy_of("2.3")
    told("text_encoder/config.json", **fields, text_config=fields)(folder)
    config: Any = family_of(folder).load("text_encoder").config
    assert config._attn_implementation == config.text_config._attn_implementation == "sdpa"


class Mine:
    """Code, to whoever unpickles it: it makes the folder `taken`."""

    def __init__(self, taken: Path) -> None:
        self.taken = taken

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.taken,)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_pickles_are_not_read(part: str, copy_of: FolderOf, tmp_path: Path):
    folder = copy_of("2.3")
    family, file = family_of(folder), file_of(folder, part)
    other = file.rename(file.with_name("other.safetensors"))
    for stem in ("pytorch_model", "diffusion_pytorch_model"):
        (file.parent / f"{stem}.bin").write_bytes(pickle.dumps(Mine(tmp_path / "taken")))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        family.load(part)
    assert refusal(folder).startswith(
        f"{folder / part} has {other.name}, but neither {file.name} nor its index of parts, {file.name}.index"
    )
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_the_name_of_the_other_library_will_not_do(part: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    file = file_of(folder, part)
    file.rename(file.with_name(WEIGHTS if part == "text_encoder" else "model.safetensors"))
    assert f"but neither {file.name} nor its index" in refusal(folder)


def test_what_is_not_loaded_is_not_looked_at(copy_of: FolderOf):
    """Neither for what it is, nor for statistics of latents."""
    folder = copy_of("2.3")
    before = family_of(folder).statistics("vae")
    save_file({"latents_mean": torch.zeros(128), "latents_std": torch.ones(128)}, folder / "vae/zz.safetensors")
    (folder / "vae/yy.safetensors").write_bytes(b"damaged")
    assert all(torch.equal(*each) for each in zip(before, family_of(folder).statistics("vae"), strict=True))


def test_the_code_of_a_tokenizer_is_not_run_whoever_sits_at_the_terminal(
    copy_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("builtins.input", lambda _question: "y")
    folder = copy_of("2.3")
    (folder / "tokenizer/mine.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'taken')!r}).mkdir()\nclass Mine: pass\n")
    told("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", None]}, tokenizer_class="Mine")(folder)
    with pytest.raises(CheckpointError, match="tokenizer cannot be loaded"):
        family_of(folder).tokenizer()
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    "entry", [["os", "system"], ["..ltx2", "X"], ["transformers", "pipeline"], ["diffusers", "AutoencoderKL"]], ids=str
)
def test_a_class_that_is_not_of_ltx_2_is_refused_at_start_and_where_it_is_loaded(entry: list[str], copy_of: FolderOf):
    folder = copy_of("2.3")
    family = family_of(folder)
    told("model_index.json", vae=entry)(folder)
    message = (
        f"{folder / 'model_index.json'} says that vae is {' '.join(entry)}, and LTX-2's is diffusers AutoencoderKLLTX2Video; fetch it again"
    )
    assert refusal(folder) == message
    with pytest.raises(CheckpointError) as caught:
        family.load("vae")
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("part", "fields"),
    [("vae", {"block_out_channels": None}), ("connectors", {"rope_type": []}), ("vocoder", {"hidden_channels": "x"})],
    ids=str,
)
def test_a_config_that_a_library_stumbles_over_is_refused_where_it_is_loaded(part: str, fields: dict[str, Any], copy_of: FolderOf):
    folder = copy_of("2.3")
    told(f"{part}/config.json", **fields)(folder)
    assert not_loaded(folder, part).endswith(f"; fetch the folder {part} of this checkpoint again")


DETOURS = {
    "quantization_config": ({"quant_method": "bitsandbytes"}, "{at} holds quantized weights (quantization_config in config.json); fetch"),
    "transformers_weights": ("other.safetensors", "{at}/config.json names other weights (transformers_weights); take that out"),
}


@pytest.mark.parametrize("key", DETOURS)
def test_a_config_that_asks_for_other_weights_is_refused(key: str, copy_of: FolderOf):
    folder, (value, said) = copy_of("2.3"), DETOURS[key]
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    assert refusal(folder).startswith(said.format(at=config.parent))


@pytest.mark.parametrize("name", ["adapter_config.json", "shard-00000-model-00001-of-00001.safetensors"])
def test_what_would_be_loaded_over_the_text_encoder_is_refused(name: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    shutil.copy(folder / "vae/config.json", folder / "text_encoder" / name)
    assert refusal(folder) == f"{folder / 'text_encoder' / name} would be loaded over the weights beside it; take it out of the folder"
