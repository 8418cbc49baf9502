"""a safetensors file -> the LoRA that a family can use, or why it cannot"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiprod_components.errors import CheckpointError
from aiprod_components.models.lora import delta_shapes, metadata_of, misfit

COMPONENTS = ("denoiser", "refiner")


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as its file describes itself.

    `component` is the network that it changes; `control` what its reference video shows (None: it takes none), whose sides are
    `downscale` times smaller than the latents'; `fault` why this family cannot use it (None: it can).
    """

    name: str
    path: Path
    component: str
    control: str | None
    downscale: int
    fault: str | None


def describe_lora(file: Path, *, family: str, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> LoraFile:
    """What a file says of itself, and whether it fits the family. `shapes` are those of the weights of each component."""
    try:
        metadata = metadata_of(file)
        component = metadata.get("component", COMPONENTS[0])
        made_for = metadata.get("family", family)
        if component not in shapes:
            fault = f"it changes {component}, which takes no LoRAs"
        elif made_for != family:
            fault = f"it was made for family {made_for}"
        else:
            fault = misfit(delta_shapes(file), shapes[component])
        return LoraFile(file.stem, file, component, metadata.get("control"), int(metadata.get("downscale", "1")), fault)
    except CheckpointError as error:
        return LoraFile(file.stem, file, COMPONENTS[0], None, 1, error.message)
