"""a family: component configs, latent grid, limits, sampling defaults and where the weights are"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError, InvalidRequestError
from aiprod_components.families.loras import COMPONENTS, LoraFile, describe_lora
from aiprod_components.models.checkpoint import load_model, read_config
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

    def check(self, video: VideoShape) -> None:
        """Raises InvalidRequestError, naming the field and the range, when `video` is beyond the limits."""
        if not 1 <= video.num_frames <= self.max_frames:
            raise InvalidRequestError(f"num_frames must be 1 to {self.max_frames}, got {video.num_frames}", field="num_frames")
        for field, side in (("height", video.height), ("width", video.width)):
            if not self.min_side <= side <= self.max_side:
                raise InvalidRequestError(f"{field} must be {self.min_side} to {self.max_side}, got {side}", field=field)
        if video.height * video.width > self.max_pixels:
            raise InvalidRequestError(
                f"width x height must be at most {self.max_pixels} pixels, got {video.width}x{video.height}", field="width"
            )


@dataclass(frozen=True)
class Chaining:
    """How longer videos are made: in chunks of `window` frames, each beginning with the last `overlap` latent frames of the one before."""

    window: int
    overlap: int

    def starts(self, num_frames: int, grid: LatentGrid) -> range:
        """The first frame of every chunk; there are as few as cover the video."""
        overlap = grid.frames_in(self.overlap)
        return range(0, max(num_frames - overlap, 1), self.window - overlap)


@dataclass(frozen=True)
class SamplingDefaults:
    """How the family is sampled unless the request says otherwise."""

    num_inference_steps: int
    guidance_scale: float
    shift: TokenShift
    refinement_sigmas: tuple[float, ...]
    distilled_sigmas: tuple[float, ...]


@dataclass(frozen=True)
class Component:
    """One network of a family: its class, the class of its config, and its config for random weights (None: trained only)."""

    model: Callable[[Any], nn.Module]
    config_class: type
    config: Any


@dataclass(frozen=True)
class Family:
    """A table of all that stages and pipelines must know of a model; `load(component)` reads its weights (CheckpointError)."""

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
        config = component.config
        if self.weights is not None:
            config = read_config(component.model, component.config_class, (self.weights / name).with_suffix(".json"))  # type: ignore[arg-type]
        with torch.device("meta"):
            return weight_shapes(component.model(config))

    def has(self, name: str) -> bool:
        """Whether there are weights of the network `name`."""
        if name not in self.components:
            return False
        if self.weights is None:
            return self.components[name].config is not None
        return (self.weights / f"{name}.safetensors").is_file()

    def load(self, name: str) -> nn.Module:
        """The network `name`, ready for inference. Raises CheckpointError naming the file and the remedy."""
        component = self.components[name]
        if self.weights is not None:
            return load_model(component.model, component.config_class, self.weights / name)  # type: ignore[arg-type]
        if component.config is None:
            raise CheckpointError(f"family {self.name} has no random form of {name}; name a folder of weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return component.model(component.config).eval().requires_grad_(False)
