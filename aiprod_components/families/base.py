"""a family: component configs, latent grid, limits, sampling defaults and where the weights are"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError, InvalidRequestError
from aiprod_components.families.fingerprint import files_in, fingerprint_of
from aiprod_components.families.loras import COMPONENTS, LoraFile, describe_lora
from aiprod_components.models.checkpoint import load_model, read_config, shapes_in
from aiprod_components.models.lora import weight_shapes
from aiprod_components.values import LatentGrid, VideoShape


@dataclass(frozen=True)
class Limits:
    """What a family can be asked for; sides in pixels."""

    max_frames: int
    min_side: int
    max_side: int
    max_pixels: int
    max_steps: int
    max_prompt_bytes: int
    max_seconds: float = 3600.0

    def check(self, video: VideoShape) -> None:
        """Raises InvalidRequestError, naming the field and the range, when `video` is beyond the limits."""
        self.check_length(video)
        for name, side in (("height", video.height), ("width", video.width)):
            if not self.min_side <= side <= self.max_side:
                raise InvalidRequestError(f"{name} must be {self.min_side} to {self.max_side}, got {side}", field=name)
        if video.height * video.width > self.max_pixels:
            raise InvalidRequestError(
                f"width x height must be at most {self.max_pixels} pixels, got {video.width}x{video.height}", field="width"
            )

    def check_length(self, video: VideoShape) -> None:
        """Raises InvalidRequestError when `video` has too few or too many frames, or lasts too long."""
        if not 1 <= video.num_frames <= self.max_frames:
            raise InvalidRequestError(f"num_frames must be 1 to {self.max_frames}, got {video.num_frames}", field="num_frames")
        if (seconds := video.num_frames / video.frame_rate) > self.max_seconds:
            raise InvalidRequestError(
                f"num_frames must be at most {self.max_seconds:g} seconds' worth, got {seconds:.1f} s at {video.frame_rate:g} frames per "
                "second; ask for fewer frames, or for more of them per second",
                field="num_frames",
            )


@dataclass(frozen=True)
class Chaining:
    """How longer videos are made: in chunks of `window` frames, each beginning with the last `overlap` latent frames of the one before.

    A chunk lasts `seconds` at most.
    """

    window: int
    overlap: int
    seconds: float = 3600.0

    def window_at(self, frame_rate: float, grid: LatentGrid) -> int:
        """Frames of a chunk. At a few a second those of `overlap` alone may last as long: something must be new in every chunk."""
        lasting = int(self.seconds * frame_rate + 1e-6)
        least = grid.frames_in(self.overlap + 1)
        return max(min(self.window, grid.frames_in((lasting - 1) // grid.time + 1)), least)

    def spans(self, num_frames: int, grid: LatentGrid, *, frame_rate: float, extends: tuple[int, ...] = ()) -> list[tuple[int, int]]:
        """The first frame of every chunk, and the first behind it; there are as few as cover the video.

        `extends` are the lengths of the videos that this one carries on, the shortest first: their chunks are as they were.
        """
        window, overlap, begin = self.window_at(frame_rate, grid), grid.frames_in(self.overlap), 0
        spans: list[tuple[int, int]] = []
        for end in (*extends, num_frames):
            starts = range(begin, max(end - overlap, 1), window - overlap)
            spans += [(start, min(start + window, end)) for start in starts]
            begin = end - overlap
        return spans


@dataclass(frozen=True)
class SamplingDefaults:
    """How the family is sampled unless the request says otherwise."""

    num_inference_steps: int
    guidance: Guidance
    shift: TokenShift
    refinement_sigmas: tuple[float, ...]
    distilled_sigmas: tuple[float, ...]
    audio_guidance: Guidance = Guidance()
    scheduler: str = "shifted_flow"
    draft_shift: float | None = None  # of drafts that are refined (None: as of any other latents)


@dataclass(frozen=True)
class Component:
    """One network of a family: its class, the class of its config, and its config for random weights (None: trained only)."""

    model: Callable[[Any], nn.Module]
    config_class: type
    config: Any


class Description(NamedTuple):
    """What a network's files say without its weights; no shapes where there are no files."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


# Stage -> the networks that it computes with, the one that it cannot be without first.
NETWORKS: dict[str, tuple[str, ...]] = {
    "text_encoder": ("text_encoder",),
    "vae_encoder": ("vae",),
    "denoiser": ("denoiser", "preview"),
    "upsampler": ("upsampler", "temporal_upsampler", "upsampler_3_2", "upsampler_3_4", "upsampler_4_1"),
    "refiner": ("refiner", "preview"),
    "vae_decoder": ("vae",),
}


@dataclass(frozen=True)
class Family:
    """A table of all that stages and pipelines must know of a model; `load(component)` reads its weights (CheckpointError).

    `architecture` says whose stages compute with it. `encodes_alone`: what a prompt is to a network depends on whether another is encoded
    beside it. `antialiases_keyframes`: what the network knows as the picture of a keyframe was filtered before it was made smaller.
    `warning` is what its operator should know of it at start (None: nothing). `replaced` are networks that lie in other folders than
    `weights`: a stage may have weights of its own.
    """

    name: str
    title: str
    licence: str
    grid: LatentGrid
    limits: Limits
    sampling: SamplingDefaults
    chaining: Chaining
    attention_blocks: int  # of the denoiser
    video: VideoShape  # the default size of a finished video
    components: Mapping[str, Component]
    weights: Path | None  # a folder of NAME.safetensors + NAME.json; None draws random weights
    prompt_enhancer: Path | None = None  # a `transformers` folder with a causal language model; None: prompts stay as they are
    lora_folder: Path | None = None  # NAME.safetensors in PEFT's or diffusers' format
    watermark: str | None = None  # a name that `make_watermark` knows; None: frames stay as they are
    architecture: str = "aiprod"
    encodes_alone: bool = False
    antialiases_keyframes: bool = True
    is_distilled: bool = False  # the weights of stage 1 are: the few predefined steps need no LoRA
    warning: str | None = None
    replaced: Mapping[str, Path] = field(default_factory=dict[str, Path])

    @property
    def makes_sound(self) -> bool:
        return self.grid.audio_rate > 0

    @property
    def unshared(self) -> str | None:
        """Why no stage's work can be shared by several processes, and the way out; None: nothing in the options speaks against it."""
        return None

    def language_model(self) -> Path:
        """The folder of what enhances prompts. Raises InvalidRequestError when the family has none."""
        if self.prompt_enhancer is None:
            raise InvalidRequestError(
                f"enhance_prompt needs a language model, and {self.name} is served without one; leave it out, or name the folder of one "
                "as prompt_enhancer in the family's args",
                field="enhance_prompt",
            )
        return self.prompt_enhancer

    @cached_property
    def loras(self) -> dict[str, LoraFile]:
        """The files of the weights' folder `loras` and of `lora_folder`, which goes first, by name; those that do not fit included."""
        folders = [*([] if self.weights is None else [self.weights / "loras"]), *([] if self.lora_folder is None else [self.lora_folder])]
        files = {file.stem: file for folder in folders for file in sorted(folder.glob("*.safetensors"))}
        shapes = {name: self._shapes(name) for name in COMPONENTS} if files else {}
        return {name: describe_lora(file, family=self.name, shapes=shapes) for name, file in files.items()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that results depend on: the content of weights, LoRAs and language model, the tables, the code and its packages."""
        tables = {name: getattr(self, name) for name in ("limits", "sampling", "chaining", "grid", "video")}
        networks = {name: (part.config_class.__name__, _as_table(part.config)) for name, part in self.components.items()}
        weights = dict(files_in("weights", self.weights, "*.safetensors", "*.json", "loras/*.safetensors", "loras/*.json"))
        for name, folder in self.replaced.items():  # by content: the same files in another folder are the same weights
            weights |= files_in("weights", folder, f"{name}.safetensors", f"{name}.json")
        return fingerprint_of(
            {"name": self.name, "attention_blocks": self.attention_blocks, "watermark": self.watermark, "networks": networks}
            | {name: asdict(table) for name, table in tables.items()},
            [
                *weights.items(),
                *files_in("loras", self.lora_folder, "*.safetensors", "*.json"),
                *files_in("prompt_enhancer", self.prompt_enhancer, "**/*"),
            ],
        )

    def lora(self, name: str) -> LoraFile:
        """Raises InvalidRequestError when there is no such LoRA, or it does not belong to this family."""
        if name not in self.loras:
            there = ", ".join(self.loras) or "none"
            raise InvalidRequestError(f"lora {name!r} is unknown to {self.name}; there is {there}", field="loras")
        if fault := self.loras[name].fault:
            raise InvalidRequestError(f"lora {name!r} does not belong to {self.name}: {fault}", field="loras")
        return self.loras[name]

    def _shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        component = self.components[name]
        with torch.device("meta"):
            return weight_shapes(component.model(self._config(name, self.folder_of(name))))

    def _config(self, name: str, folder: Path | None) -> Any:
        component = self.components[name]
        if folder is None:
            return component.config
        return read_config(component.model, component.config_class, (folder / name).with_suffix(".json"))  # type: ignore[arg-type]

    def folder_of(self, name: str) -> Path | None:
        """Where the network `name` lies; None: its weights are drawn."""
        return self.replaced.get(name, self.weights)

    def file_of(self, name: str, folder: Path) -> Path:
        """By which it is known whether the network `name` lies in a folder."""
        return folder / f"{name}.safetensors"

    def networks_of(self, stage: str) -> tuple[str, ...]:
        """What a stage computes with, the network that it cannot be without first; none for one without weights in the family's folder."""
        return NETWORKS.get(stage, ())

    def describe(self, name: str, folder: Path | None) -> Description:
        """The network `name` as it lies in a folder (None: as it is drawn). Raises CheckpointError when it is missing or damaged."""
        config = _as_table(self._config(name, folder)) or {}
        return Description(config, {} if folder is None else shapes_in((folder / name).with_suffix(".safetensors")))

    def has(self, name: str) -> bool:
        """Whether there are weights of the network `name`."""
        if name not in self.components:
            return False
        if (folder := self.folder_of(name)) is None:
            return self.components[name].config is not None
        return self.file_of(name, folder).is_file()

    def load(self, name: str) -> nn.Module:
        """The network `name`, ready for inference. Raises CheckpointError naming the file and the remedy."""
        component = self.components[name]
        if (folder := self.folder_of(name)) is not None:
            return load_model(component.model, component.config_class, folder / name)  # type: ignore[arg-type]
        if component.config is None:
            raise CheckpointError(f"family {self.name} has no random form of {name}; name a folder of weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return component.model(component.config).eval().requires_grad_(False)


def _as_table(config: Any) -> dict[str, Any] | None:
    return None if config is None else asdict(config)
