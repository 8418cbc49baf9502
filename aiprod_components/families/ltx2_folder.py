"""a folder that is said to be LTX-2 -> its version, variant and licence; or what is wrong with it, and the way out

Configs and the headers of weights are read, never weights: a folder is looked at whenever a config is checked or a replica starts.
"""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiprod_components.errors import CheckpointError
from aiprod_components.families.ltx2_files import Config, check_tensors, check_tokenizer, check_weights, read_json, value_of

FULL = "transformer_full"  # the guided transformer of a folder whose own is the distilled one
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
UNSAID = "not said in the checkpoint's folder; see the terms under which it was published"

BLOCKS = 48  # of a transformer whose config does not say it
BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")  # how the name of a block's weight begins

# Part -> the classes that read it, each with its library as the checkpoint's index names it.
CLASSES: dict[str, tuple[tuple[str, str], ...]] = {
    "text_encoder": (("transformers", "Gemma3ForConditionalGeneration"), ("transformers", "Gemma4UnifiedForConditionalGeneration")),
    "connectors": (("ltx2", "LTX2TextConnectors"),),
    "transformer": (("diffusers", "LTX2VideoTransformer3DModel"),),
    "vae": (("diffusers", "AutoencoderKLLTX2Video"),),
    "audio_vae": (("diffusers", "AutoencoderKLLTX2Audio"),),
    "vocoder": (("ltx2", "LTX2Vocoder"), ("ltx2", "LTX2VocoderWithBWE")),
    "latent_upsampler": (("ltx2", "LTX2LatentUpsamplerModel"),),
}
WEIGHED = tuple(CLASSES)
NEEDED = ("scheduler", "tokenizer", *WEIGHED)


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
    for name in WEIGHED:
        class_of(folder, name)
    read_json(folder / "scheduler" / "scheduler_config.json")
    check_tokenizer(folder / "tokenizer")
    for name in (*WEIGHED, *([FULL] if (folder / FULL).is_dir() else [])):
        names = check_weights(folder / name)
        if name in ("transformer", FULL):
            _check_blocks(folder / name, names)
    check_parts(folder)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Whatever reading a folder may raise is a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder} cannot be read ({error.strerror or error}); let the server's user read it, or name another folder"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is not as checkpoints are ({type(error).__name__}: {error}); fetch it again") from error


def _refuse_file(file: Path) -> None:
    if file.suffix == ".safetensors":
        check_tensors(file)
    raise CheckpointError(f"{file} is a single file; turn it into a diffusers folder with: aiprod convert {file} FOLDER")


def class_of(folder: Path, part: str) -> tuple[str, str]:
    """Library and class of a part, as the checkpoint's index says. Raises CheckpointError for any that are not LTX-2's."""
    part = "transformer" if part == FULL else part
    known = CLASSES[part]
    # No pipeline of text to video has an upsampler.
    if part == "latent_upsampler":
        return known[0]
    index = folder / "model_index.json"
    said = read_json(index).get(part)
    if not isinstance(said, list) or [type(name) for name in said] != [str, str]:
        raise CheckpointError(f"{index} does not say what {part} is; fetch it again")
    if tuple(said) not in known:
        ours = " or ".join(" ".join(each) for each in known)
        raise CheckpointError(f"{index} says that {part} is {' '.join(said)[:80]}, and LTX-2's is {ours}; fetch it again")
    return said[0], said[1]


def _check_blocks(transformer: Path, names: Collection[str]) -> None:
    held = 1 + max((int(found[1]) for name in names if (found := BLOCK.match(name))), default=-1)
    if (said := _blocks(transformer)) != held:
        raise CheckpointError(
            f"{transformer / 'config.json'} says that there are {said} blocks (num_layers), and its weights have {held}; "
            "fetch both again, from one checkpoint"
        )


def _blocks(transformer: Path) -> int:
    file = transformer / "config.json"
    said = value_of(read_json(file), "num_layers", kind=int, file=file)
    return BLOCKS if said is None else said


def check_parts(folder: Path) -> None:
    """Raises CheckpointError naming both when two parts are of different versions, or one does not give what the other takes."""
    version = detect_version(folder)
    configs = {name: read_json(folder / name / "config.json") for name in ("transformer", *MARKS)}
    if (folder / FULL).is_dir() and (full := version_of(folder / FULL)) != version:
        raise _strangers(folder, "transformer", version.name, FULL, full.name)
    value_of(configs["vae"], "decoder_block_out_channels", kind=list, file=folder / "vae" / "config.json")
    for name, versions in MARKS.items():
        if version.name not in (fitting := versions(configs[name])):
            raise _strangers(folder, "transformer", version.name, name, " or ".join(fitting))
    for one, width, other, wanted in _joints(folder, configs):
        if None not in (width, wanted) and width != wanted:
            raise _strangers(folder, one, f"width {width}", other, f"width {wanted}")


def _strangers(folder: Path, one: str, of: str, other: str, of_other: str) -> CheckpointError:
    return CheckpointError(
        f"{folder / one} ({of}) does not belong to {folder / other} ({of_other}); fetch both folders from one checkpoint of LTX-2"
    )


def _joints(folder: Path, configs: dict[str, Config]) -> Iterator[tuple[str, int | None, str, int | None]]:
    """(part, width of what it gives, part that takes it, width that it takes); None: its config leaves it to a default."""

    def width(part: str, key: str) -> int | None:
        # Some are null where nothing has that width.
        config = {name: value for name, value in configs[part].items() if value is not None}
        return value_of(config, key, kind=int, file=folder / part / "config.json")

    text_file = folder / "text_encoder" / "config.json"
    text = value_of(configs["text_encoder"], "text_config", kind=dict, file=text_file) or configs["text_encoder"]
    hidden, layers = (value_of(text, key, kind=int, file=text_file) for key in ("hidden_size", "num_hidden_layers"))
    yield "text_encoder", hidden, "connectors", width("connectors", "caption_channels")
    yield "text_encoder", None if layers is None else layers + 1, "connectors", width("connectors", "text_proj_in_factor")
    # In 2.0 the transformer projects what it is given; since 2.3 it takes it as wide as its cross-attention.
    projects = configs["transformer"].get("use_prompt_embeddings", True)
    for kind, attention in (("video", "cross_attention_dim"), ("audio", "audio_cross_attention_dim")):
        heads, size = (width("connectors", f"{kind}_connector_{name}") for name in ("num_attention_heads", "attention_head_dim"))
        given = None if heads is None or size is None else heads * size
        yield "connectors", given, "transformer", width("transformer", "caption_channels" if projects else attention)


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
    return _blocks(transformer) if read_json(transformer / "config.json").get("perturbed_attn") else 0


def licence_of(folder: Path) -> str:
    """The first line of the folder's licence that says something, or what its card says; else where to look. It is shown on terminals."""
    return _printable(_licence(folder))[:200]


def _licence(folder: Path) -> str:
    for name in LICENCES:
        if (folder / name).is_file():
            lines = (_printable(line).strip(" #") for line in (folder / name).read_text(errors="replace").splitlines())
            return next((line for line in lines if line), name)
    card = _front_matter(folder / "README.md")
    name = next((card[key] for key in ("license_name", "license") if card.get(key, "other") != "other"), None)
    link = card.get("license_link", "")
    return UNSAID if name is None else (f"{name} ({link})" if link.startswith("https://") else name)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


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
