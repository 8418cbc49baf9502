"""`ltx2`: a diffusers folder of LTX-2 2.0, 2.3 or 2.5 -> what it is, its table, and its networks one at a time

The networks are diffusers' and transformers' own (extra `ltx2`), imported when the first of them is loaded.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError
from aiprod_components.families.base import Chaining, Description, Family, Limits, SamplingDefaults
from aiprod_components.families.fingerprint import files_in, fingerprint_of, sample_of_file
from aiprod_components.families.loras import COMPONENTS as LORA_COMPONENTS
from aiprod_components.families.loras import LoraFile, Shapes, describe_lora
from aiprod_components.families.ltx2_files import check_tensors, check_weights, files_of, read_json, read_tensors
from aiprod_components.families.ltx2_fitting import AS_IT_IS, Fitting
from aiprod_components.families.ltx2_folder import (
    BLOCKS,
    FULL,
    UNSAID,
    VERSIONS,
    Version,
    check_folder,
    choose_transformer,
    class_of,
    contradiction,
    detect_variant,
    detect_version,
    licence_of,
    readable,
    skippable_blocks,
)
from aiprod_components.families.ltx2_loras import shapes_of
from aiprod_components.families.ltx2_networks import load_network, load_tokenizer
from aiprod_components.values import LatentGrid, VideoShape

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
REFINEMENT_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)
DRAFT_SHIFT = 2.05  # of guided drafts, however many tokens they have
AUDIO_RATE = 25.0  # audio latents per second

PACKAGES = ("diffusers", "peft", "accelerate")  # of the extra
VARIANTS = ("dev", "distilled")
DISTILLED = "distilled"  # the LoRA of that name


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
        part = COMPONENT_FOLDERS.get(name, name)
        return self.file_of(part, self._place(part).parent).is_file()

    def load(self, name: str) -> nn.Module:
        """The network in the folder `name`, ready for inference, in the family's precision. Raises CheckpointError naming the file."""
        # The vocoder sums many small numbers: below float32 the sound is audibly wrong.
        dtype = torch.float32 if name == "vocoder" else self.dtype
        return load_network(self._place(name), class_of(self.folder, name), dtype=dtype)

    def _place(self, part: str) -> Path:
        return self.replaced.get(part, self.folder) / part

    def networks_of(self, stage: str) -> tuple[str, ...]:
        """The folders that a stage loads; the tokenizer stays the checkpoint's."""
        if stage == "denoiser":
            return (self.transformer,)
        return STAGE_FOLDERS.get(stage, ())

    def file_of(self, name: str, folder: Path) -> Path:
        return folder / name / "config.json"

    def describe(self, name: str, folder: Path | None) -> Description:
        """Without what only says by which release of diffusers it was written, and from where. Raises CheckpointError."""
        assert folder is not None, "this family always has a folder"
        check_weights(folder / name)
        shapes = {key: shape for file in files_of(folder / name) for key, shape in check_tensors(file).items()}
        said = read_json(folder / name / "config.json")
        return Description({key: value for key, value in said.items() if key not in UNREAD}, shapes)

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
        return load_tokenizer(self.folder / "tokenizer")

    def statistics(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel of the latents of `vae` or `audio_vae`, rounded as those of one whole pipeline are."""
        mean, deviation = read_tensors(self._place(name), ("latents_mean", "latents_std"))
        return mean.to(self.dtype), deviation.to(self.dtype)

    def config(self, name: str) -> dict[str, Any]:
        return read_json(self._place(name) / "config.json")

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
        for file in files_of(self.folder / self.transformer):
            sizes = {key.removesuffix(".weight"): size for key, size in check_tensors(file).items() if key.endswith(".weight")}
            shapes |= {module: size for module, size in sizes.items() if len(size) > 1}
        return shapes

    @cached_property
    def fingerprint(self) -> str:
        """Of names, sizes, headers and samples of the files: they are too large to be read whole whenever a replica starts."""
        tables: dict[str, Any] = {"name": self.name, "version": self.version.name, "fitting": asdict(self.fitting)}
        tables |= {"is_distilled": self.is_distilled, "watermark": self.watermark}
        files = dict(files_in("weights", self.folder, *(f"**/*{ending}" for ending in ENDINGS)))
        for part, folder in self.replaced.items():
            files = {name: file for name, file in files.items() if not name.startswith(f"weights/{part}/")}
            files |= files_in("weights", folder, *(f"{part}/**/*{ending}" for ending in ENDINGS))
        files |= files_in("loras", self.lora_folder, "*.safetensors", "*.json")
        return fingerprint_of(tables | {"files": {name: sample_of_file(file) for name, file in sorted(files.items())}}, [])


ENDINGS = (".safetensors", ".json", ".model")  # of the files that results depend on
UNREAD = ("_diffusers_version", "_name_or_path", "transformers_version", "torch_dtype", "dtype")  # of a config
# Stage -> the folders that it loads, the one that it cannot be without first; of the denoiser the checkpoint says which.
STAGE_FOLDERS: dict[str, tuple[str, ...]] = {
    "text_encoder": ("text_encoder", "connectors"),
    "vae_encoder": ("vae",),
    "audio_encoder": ("audio_vae",),
    "upsampler": ("latent_upsampler",),
    "refiner": ("transformer",),
    "audio_decoder": ("audio_vae", "vocoder"),
    "vae_decoder": ("vae",),
}
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
    with readable(folder := Path(weights)):
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
            max_frames=3601, min_side=64, max_side=3840, max_pixels=3840 * 2176, max_steps=100, max_prompt_bytes=4000, max_seconds=60.1
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
        chaining=Chaining(window=1201, overlap=3, seconds=20.1),
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
