"""a folder that is said to be LTX-2 -> its version, variant and licence; or what is wrong with it, and the way out

Configs and the headers of weights are read, never weights: a folder is looked at whenever a config is checked or a replica starts.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from aiprod_components.errors import CheckpointError

FULL = "transformer_full"  # the guided transformer of a folder whose own is the distilled one
WEIGHED = ("text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler")
NEEDED = ("scheduler", "tokenizer", *WEIGHED)
WHOLE = ("diffusion_pytorch_model.safetensors", "model.safetensors")  # the weights of a network that are not in parts
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
UNSAID = "not said in the checkpoint's folder; see the terms under which it was published"

# Formats that diffusers does not load -> how the names of their scales end; the first that is met says which it is.
SCALED = {"NVFP4": (".weight_scale_2",), "scaled fp8": (".weight_scale", ".scale_weight", "scaled_fp8")}

Config = dict[str, Any]


@dataclass(frozen=True)
class Version:
    """What differs between generations: steps, the block that skip guidance leaves out, and how pictures were compressed in training.

    `cross_timestep`: the attention between pictures and sound is told the other's noise level.
    """

    name: str
    num_inference_steps: int
    skipped_block: int
    picture_crf: int
    cross_timestep: bool


VERSIONS: dict[str, Version] = {
    "2.0": Version("2.0", num_inference_steps=40, skipped_block=29, picture_crf=33, cross_timestep=False),
    "2.3": Version("2.3", num_inference_steps=30, skipped_block=28, picture_crf=33, cross_timestep=True),
    "2.5": Version("2.5", num_inference_steps=30, skipped_block=28, picture_crf=18, cross_timestep=True),
}

# A part -> the versions that its config fits.
MARKS: dict[str, Callable[[Config], tuple[str, ...]]] = {
    "text_encoder": lambda config: ("2.5",) if str(config.get("model_type")).startswith("gemma4") else ("2.0", "2.3"),
    "connectors": lambda config: ("2.3", "2.5") if config.get("per_modality_projections") else ("2.0",),
    "vae": lambda config: ("2.3", "2.5") if len(config.get("decoder_block_out_channels", ())) > 3 else ("2.0",),
    "vocoder": lambda config: ("2.3", "2.5") if config.get("_class_name") == "LTX2VocoderWithBWE" else ("2.0",),
}


def check_folder(folder: Path) -> None:
    """Raises CheckpointError for a folder that lacks what is needed, holds damaged files, or parts that do not belong together."""
    if folder.is_file():
        _refuse_file(folder)
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(f"{folder} has no model_index.json, so it is no diffusers folder; name the folder that holds it")
    index = read_json(folder / "model_index.json")
    if not str(kind := index.get("_class_name")).startswith("LTX2"):
        raise CheckpointError(f"{folder / 'model_index.json'} is of a {kind}, not of LTX-2; name a folder of LTX-2 2.0, 2.3 or 2.5")
    for name in NEEDED:
        if not (folder / name).is_dir():
            raise CheckpointError(f"{folder} has no folder {name}; fetch that part of the checkpoint as well")
        # No pipeline of text to video has an upsampler.
        if name != "latent_upsampler" and not _names_a_class(index.get(name)):
            raise CheckpointError(f"{folder / 'model_index.json'} does not say what {name} is; fetch it again")
    read_json(folder / "scheduler" / "scheduler_config.json")
    check_tokenizer(folder / "tokenizer")
    for name in (*WEIGHED, *([FULL] if (folder / FULL).is_dir() else [])):
        check_weights(folder / name)
    check_parts(folder)


def _refuse_file(file: Path) -> None:
    if file.suffix == ".safetensors":
        check_tensors(file)
    raise CheckpointError(f"{file} is a single file; turn it into a diffusers folder with: aiprod convert {file} FOLDER")


def _names_a_class(entry: Any) -> bool:
    return isinstance(entry, list) and [type(name) for name in entry] == [str, str]


def check_tokenizer(folder: Path) -> None:
    """Raises CheckpointError when a file of the tokenizer is missing or damaged."""
    read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json")
    elif not (folder / "tokenizer.model").is_file():
        raise CheckpointError(f"{folder} has neither tokenizer.json nor tokenizer.model; fetch the folder tokenizer of this checkpoint")


def check_weights(folder: Path) -> None:
    """Raises CheckpointError when a network's config or weights are missing, cut off, or in a format that diffusers does not load."""
    read_json(folder / "config.json")
    held = {file.name: check_tensors(file) for file in sorted(folder.glob("*.safetensors"))}
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not held and not indices:
        raise CheckpointError(f"{folder} has no .safetensors file; fetch the weights of this part of the checkpoint")
    if not indices and held.keys().isdisjoint(WHOLE):
        raise CheckpointError(f"{folder} has {min(held)}, but no index of parts (*.safetensors.index.json); fetch that as well")
    for index in indices:
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict):
            raise CheckpointError(f"{index} is damaged (it has no weight_map); fetch it again")
        for key, name in places.items():
            if name not in held:
                raise CheckpointError(f"{folder / name} is missing, which {index.name} names; fetch it")
            if key not in held[name]:
                raise CheckpointError(f"{folder / name} has no {key}, which {index.name} says it has; fetch both again")


def check_tensors(file: Path) -> list[str]:
    """The names in a file of weights; reads the header alone: a file that is cut off is shorter than that says."""
    try:
        with safe_open(file, "pt") as tensors:
            names = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut off ({error}); fetch it again") from error
    for kind, endings in SCALED.items():
        if scale := next((name for name in names if name.endswith(endings)), None):
            raise CheckpointError(f"{file} holds {kind} weights ({scale}), which diffusers does not load; fetch the bfloat16 weights")
    return names


def check_parts(folder: Path) -> None:
    """Raises CheckpointError naming both when two parts are of different versions, or one does not give what the other takes."""
    version = detect_version(folder)
    configs = {name: read_json(folder / name / "config.json") for name in ("transformer", *MARKS)}
    if (folder / FULL).is_dir() and (full := version_of(folder / FULL)) != version:
        raise _strangers(folder, "transformer", version.name, FULL, full.name)
    for name, versions in MARKS.items():
        if version.name not in (fitting := versions(configs[name])):
            raise _strangers(folder, "transformer", version.name, name, " or ".join(fitting))
    for one, width, other, wanted in _joints(configs):
        if None not in (width, wanted) and width != wanted:
            raise _strangers(folder, one, f"width {width}", other, f"width {wanted}")


def _strangers(folder: Path, one: str, of: str, other: str, of_other: str) -> CheckpointError:
    return CheckpointError(
        f"{folder / one} ({of}) does not belong to {folder / other} ({of_other}); fetch both folders from one checkpoint of LTX-2"
    )


def _joints(configs: dict[str, Config]) -> Iterator[tuple[str, Any, str, Any]]:
    """(part, width of what it gives, part that takes it, width that it takes); None: its config leaves it to a default."""
    connectors, transformer = configs["connectors"], configs["transformer"]
    text = configs["text_encoder"].get("text_config", configs["text_encoder"])
    yield "text_encoder", text.get("hidden_size"), "connectors", connectors.get("caption_channels")
    yield "text_encoder", _sum(text.get("num_hidden_layers"), 1), "connectors", connectors.get("text_proj_in_factor")
    # In 2.0 the transformer projects what it is given; since 2.3 it takes it as wide as its cross-attention.
    projects = transformer.get("use_prompt_embeddings", True)
    for kind, attention in (("video", "cross_attention_dim"), ("audio", "audio_cross_attention_dim")):
        heads, size = (connectors.get(f"{kind}_connector_{name}") for name in ("num_attention_heads", "attention_head_dim"))
        given = None if heads is None or size is None else heads * size
        yield "connectors", given, "transformer", transformer.get("caption_channels" if projects else attention)


def _sum(number: int | None, more: int) -> int | None:
    return None if number is None else number + more


def detect_version(folder: Path) -> Version:
    """Raises CheckpointError for what is no LTX-2."""
    return version_of(folder / "transformer")


def version_of(transformer: Path) -> Version:
    """By its config, in which what was always so may be missing. Raises CheckpointError for what is no LTX-2."""
    config = read_json(transformer / "config.json")
    if (kind := config.get("_class_name")) != "LTX2VideoTransformer3DModel":
        raise CheckpointError(f"{transformer} is a {kind}, not LTX-2's LTX2VideoTransformer3DModel; name a folder of LTX-2 2.0, 2.3 or 2.5")
    if config.get("use_prompt_embeddings", True):
        return VERSIONS["2.0"]
    return VERSIONS["2.3" if config.get("ff_bias", True) else "2.5"]


def detect_variant(folder: Path) -> str:
    """A distilled checkpoint comes with a scheduler that leaves its few predefined noise levels as they are."""
    return "dev" if read_json(folder / "scheduler" / "scheduler_config.json").get("use_dynamic_shifting") else "distilled"


def choose_transformer(folder: Path, variant: str) -> Path:
    """Stage 1's. Raises CheckpointError when the checkpoint has only the other one."""
    if variant == "distilled" or (folder / FULL).is_dir():
        return folder / ("transformer" if variant == "distilled" else FULL)
    if detect_variant(folder) == "distilled":
        raise CheckpointError(f"{folder} has the distilled transformer only: fetch {FULL} as well, or leave out variant: dev")
    return folder / "transformer"


def contradiction(folder: Path, variant: str) -> str | None:
    """What a folder says against the variant that it is served as (None: nothing). Its owner knows better, who may have fused a LoRA."""
    # Beside another transformer the folder's own is the distilled one, whatever the scheduler does for the other.
    if variant == detect_variant(folder) or variant != "distilled" or (folder / FULL).is_dir():
        return None
    return (
        f"{folder / 'scheduler' / 'scheduler_config.json'} says that the checkpoint is guided (use_dynamic_shifting); it is served as "
        "distilled because variant says so; leave variant out unless its weights are distilled"
    )


def skippable_blocks(transformer: Path) -> int:
    """How many blocks skip guidance may choose from: the attention of 2.0 has no way to be left out, whatever is asked."""
    config = read_json(transformer / "config.json")
    return int(config.get("num_layers", 48)) if config.get("perturbed_attn") else 0


def licence_of(folder: Path) -> str:
    """The first line of the folder's licence that says something, or what its card says; else where to look."""
    for name in LICENCES:
        if (folder / name).is_file():
            lines = (line.strip(" #\t") for line in (folder / name).read_text(errors="replace").splitlines())
            return next((line for line in lines if line), name)[:200]
    card = _front_matter(folder / "README.md")
    name = next((card[key] for key in ("license_name", "license") if card.get(key, "other") != "other"), None)
    link = card.get("license_link", "")
    return UNSAID if name is None else (f"{name} ({link})" if link.startswith("https://") else name)[:200]


def _front_matter(card: Path) -> dict[str, str]:
    """The plain fields between the two lines `---` that a model's card begins with."""
    lines = card.read_text(errors="replace").splitlines() if card.is_file() else []
    if not lines or lines[0].strip() != "---":
        return {}
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        fields |= {key.strip(): text} if (text := value.strip().strip("'\"")) else {}
    return fields


def read_json(file: Path) -> Config:
    """Raises CheckpointError when it is missing or not a JSON object."""
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; fetch it") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); fetch it again") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{file} is damaged (it is no JSON object); fetch it again")
    return read
