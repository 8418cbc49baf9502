"""a family: component configs, latent grid, limits, sampling defaults and where the weights are"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError, InvalidRequestError
from aiprod_components.models.checkpoint import load_model
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
class SamplingDefaults:
    """How the family is sampled unless the request says otherwise."""

    num_inference_steps: int
    guidance_scale: float
    shift: TokenShift
    refinement_sigmas: tuple[float, ...]


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
    video: VideoShape  # the default size of a finished video
    components: Mapping[str, Component]
    weights: Path | None  # a folder of NAME.safetensors + NAME.json; None draws random weights

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
