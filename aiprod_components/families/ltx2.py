"""`ltx2`: a diffusers folder of LTX-2 2.0, 2.3 or 2.5 -> what it is, its table, and its networks one at a time

The networks are diffusers' and transformers' own (extra `ltx2`), imported when the first of them is loaded.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError
from aiprod_components.families.base import Chaining, Family, Limits, SamplingDefaults
from aiprod_components.families.fingerprint import files_in, fingerprint_of, sample_of_file
from aiprod_components.families.loras import COMPONENTS as LORA_COMPONENTS
from aiprod_components.families.loras import LoraFile, Shapes, describe_lora
from aiprod_components.families.ltx2_fitting import AS_IT_IS, Fitting
from aiprod_components.families.ltx2_folder import (
    FULL,
    UNSAID,
    VERSIONS,
    Version,
    check_folder,
    choose_transformer,
    contradiction,
    detect_variant,
    detect_version,
    licence_of,
    read_json,
    skippable_blocks,
)
from aiprod_components.families.ltx2_loras import shapes_of
from aiprod_components.values import LatentGrid, VideoShape

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
REFINEMENT_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)
DRAFT_SHIFT = 2.05  # of guided drafts, however many tokens they have
AUDIO_RATE = 25.0  # audio latents per second
BLOCKS = 48  # of the transformer

PACKAGES = ("diffusers", "peft", "accelerate")  # of the extra
VARIANTS = ("dev", "distilled")
DISTILLED = "distilled"  # the LoRA of that name

# Folder -> the class that reads it; a stage loads its own alone.
NETWORKS = ("text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler", "duration_head")


@dataclass(frozen=True)
class LTX2Family(Family):
    """LTX-2 from a diffusers folder, which is `weights`."""

    version: Version = VERSIONS["2.3"]
    fitting: Fitting = AS_IT_IS

    @property
    def dtype(self) -> torch.dtype:
        return self.fitting.dtype

    @property
    def unshared(self) -> str | None:
        # Each rank would decide by its own tokens, and wait for those that decided otherwise.
        return "cache and ranks do not go together; leave out cache or placement_group_bundles" if self.fitting.cache else None

    @property
    def folder(self) -> Path:
        assert self.weights is not None, "this family always has a folder"
        return self.weights

    def has(self, name: str) -> bool:
        """Whether there are weights of the network `name`."""
        return (self.folder / COMPONENT_FOLDERS.get(name, name) / "config.json").is_file()

    def load(self, name: str) -> nn.Module:
        """The network in the folder `name`, ready for inference, in the family's precision. Raises CheckpointError naming the file."""
        # The vocoder sums many small numbers: below float32 the sound is audibly wrong.
        dtype = torch.float32 if name == "vocoder" else self.dtype
        path = self.folder / name
        try:
            network = _class_of(self.folder, name).from_pretrained(path, dtype=dtype, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, AttributeError) as error:
            raise CheckpointError(f"{path} cannot be loaded ({error}); fetch the folder {name} of this checkpoint again") from error
        return network.eval().requires_grad_(False)

    @property
    def transformer(self) -> str:
        """The folder of stage 1's."""
        return FULL if (self.folder / FULL).is_dir() and not self.is_distilled else "transformer"

    @property
    def refiner_lora(self) -> LoraFile | None:
        """What makes stage 2's transformer refine in a few steps; None: it does so as it is. Raises CheckpointError when it is missing."""
        if self.is_distilled or self.transformer == FULL:
            return None
        if DISTILLED not in self.loras:
            place = self.folder / "loras" / f"{DISTILLED}.safetensors"
            raise CheckpointError(
                f"the refiner of a guided LTX-2 needs its distilled LoRA; put it at {place}, or serve a distilled checkpoint instead"
            )
        return self.loras[DISTILLED]

    def tokenizer(self) -> Any:
        """Raises CheckpointError when the folder has none that reads."""
        from transformers import AutoTokenizer

        path = self.folder / "tokenizer"
        try:
            return AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be loaded ({error}); fetch the folder tokenizer of this checkpoint again") from error

    def statistics(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel of the latents of `vae` or `audio_vae`, rounded as those of one whole pipeline are."""
        wanted = ("latents_mean", "latents_std")
        found: dict[str, Tensor] = {}
        for file in sorted((self.folder / name).glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                found |= {key: tensors.get_tensor(key) for key in wanted if key in tensors.keys()}  # noqa: SIM118
        if missing := [key for key in wanted if key not in found]:
            raise CheckpointError(f"{self.folder / name} has no {missing[0]}; fetch the folder {name} of this checkpoint again")
        return found["latents_mean"].to(self.dtype), found["latents_std"].to(self.dtype)

    def config(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name / "config.json")

    @cached_property
    def loras(self) -> dict[str, LoraFile]:
        """The files of the weights' folder `loras` and of `lora_folder`, which goes first, by name."""
        folders = [self.folder / "loras", *([] if self.lora_folder is None else [self.lora_folder])]
        files = {file.stem: file for folder in folders for file in sorted(folder.glob("*.safetensors"))}
        shapes = self._shapes_of_transformer() if files else {}
        of: dict[str, Shapes] = dict.fromkeys(LORA_COMPONENTS, shapes)
        changed = partial(shapes_of, known=shapes)
        return {name: describe_lora(file, family=self.name, shapes=of, changed=changed) for name, file in files.items()}

    def _shapes_of_transformer(self) -> dict[str, tuple[int, ...]]:
        """Of the weights that a LoRA may change, from the headers of its files."""
        shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted((self.folder / self.transformer).glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                sizes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys() if key.endswith(".weight")}  # noqa: SIM118
            shapes |= {key.removesuffix(".weight"): size for key, size in sizes.items() if len(size) > 1}
        return shapes

    @cached_property
    def fingerprint(self) -> str:
        """Of names, sizes, headers and samples of the files: they are too large to be read whole whenever a replica starts."""
        tables: dict[str, Any] = {"name": self.name, "version": self.version.name, "fitting": asdict(self.fitting)}
        tables |= {"is_distilled": self.is_distilled, "watermark": self.watermark}
        files = [
            *files_in("weights", self.folder, *(f"**/*{ending}" for ending in (".safetensors", ".json", ".model"))),
            *files_in("loras", self.lora_folder, "*.safetensors", "*.json"),
        ]
        return fingerprint_of(tables | {"files": {name: sample_of_file(file) for name, file in files}}, [])


# What pipelines call a network -> the folder that it lies in.
COMPONENT_FOLDERS = {"denoiser": "transformer", "refiner": "transformer", "upsampler": "latent_upsampler"}


def make_ltx2(*, weights: str | None, variant: str | None = None, fitting: Fitting = AS_IT_IS) -> Family:
    """Raises CheckpointError when the folder is not one that can be served, naming the file at fault and the way out."""
    if weights is None:
        raise CheckpointError("family ltx2 ships no weights: name a diffusers folder of LTX-2 2.0, 2.3 or 2.5 as weights")
    if missing := next((package for package in PACKAGES if not is_installed(package)), None):
        raise CheckpointError(f"family ltx2 needs {missing}; install it with: pip install 'aiprod[ltx2]'")
    if variant not in (None, *VARIANTS):
        raise CheckpointError(f"variant {variant!r} of ltx2 is unknown; the variants are {', '.join(VARIANTS)}")
    folder = Path(weights)
    check_folder(folder)
    version = detect_version(folder)
    variant = detect_variant(folder) if variant is None else variant
    blocks = skippable_blocks(choose_transformer(folder, variant))
    family = _family_of(folder, version, variant, blocks=blocks, fitting=fitting)
    return replace(family, licence=licence_of(folder), warning=contradiction(folder, variant))


def unserved_ltx2(version: str, variant: str) -> Family:
    """The family of a folder that is not here: its requests can be planned and reckoned with, not run."""
    return _family_of(Path("absent"), VERSIONS[version], variant, blocks=BLOCKS, fitting=AS_IT_IS)


def _family_of(folder: Path, version: Version, variant: str, *, blocks: int, fitting: Fitting) -> Family:
    guidance = _guidance(version, blocks=blocks, is_distilled=variant == DISTILLED)
    return LTX2Family(
        name="ltx2",
        title=f"LTX-2 {version.name}, {variant}, {fitting.precision}",
        licence=UNSAID,
        grid=LatentGrid(time=8, space=32, channels=128, audio_rate=AUDIO_RATE),
        limits=Limits(
            max_frames=1201, min_side=64, max_side=3840, max_pixels=3840 * 2176, max_steps=100, max_prompt_bytes=4000, max_seconds=20.1
        ),
        sampling=SamplingDefaults(
            num_inference_steps=version.num_inference_steps,
            guidance=guidance,
            audio_guidance=guidance if guidance == Guidance() else replace(guidance, scale=7.0),
            shift=TokenShift(few_tokens=1024, few_shift=0.95, many_tokens=4096, many_shift=2.05),
            refinement_sigmas=REFINEMENT_SIGMAS,
            distilled_sigmas=DISTILLED_SIGMAS,
            scheduler="stretched_flow",
            draft_shift=DRAFT_SHIFT,
        ),
        chaining=Chaining(window=1201, overlap=3),
        attention_blocks=blocks,
        video=VideoShape(num_frames=121, height=512, width=768, frame_rate=24.0),
        components={},
        weights=folder,
        architecture="ltx2",
        encodes_alone=True,
        antialiases_keyframes=False,
        is_distilled=variant == "distilled",
        version=version,
        fitting=fitting,
    )


def _guidance(version: Version, *, blocks: int, is_distilled: bool) -> Guidance:
    """Of pictures."""
    if is_distilled:
        return Guidance()
    guidance = Guidance(scale=3.0, rescale=0.7, modality_scale=3.0)
    return replace(guidance, stg_scale=1.0, stg_blocks=(min(version.skipped_block, blocks - 1),)) if blocks else guidance


def is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _class_of(folder: Path, name: str) -> Any:
    """The class that the checkpoint's index names, from the library that it names."""
    if name == "latent_upsampler":  # not in the index of a text-to-video pipeline
        library, cls = "ltx2", "LTX2LatentUpsamplerModel"
    else:
        library, cls = read_json(folder / "model_index.json")["transformer" if name == FULL else name]
    # Components that no library exports by themselves are named by the pipeline that they belong to.
    module = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    return getattr(import_module(module), cls)
