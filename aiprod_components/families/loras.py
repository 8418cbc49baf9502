"""a safetensors file -> the LoRA that a family can use, or why it cannot"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiprod_components.errors import CheckpointError
from aiprod_components.media.controls import CONTROLS
from aiprod_components.models.lora import check_header, metadata_of, misfit

COMPONENTS = ("denoiser", "refiner")
Shapes = Mapping[str, tuple[int, ...]]  # of weights, by their modules


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


def describe_lora(file: Path, *, family: str, shapes: Mapping[str, Shapes], changed: Callable[[Path], Shapes] = check_header) -> LoraFile:
    """What a file says of itself, and whether it fits the family. `shapes` are those of the weights of each component, `changed` reads
    those that a file changes, by the family's names.

    What its header leaves unsaid the file beside it may say, NAME.json.
    """
    try:
        metadata = {**_beside(file), **metadata_of(file)}
        fault = _fault(metadata, family=family, shapes=shapes) or misfit(changed(file), shapes[_component(metadata)])
    except CheckpointError as error:
        # Clients read it: the server's folders are none of their business.
        metadata, fault = {}, error.message.replace(str(file), "its file")
    downscale = int(_downscale(metadata)) if fault is None else 1
    return LoraFile(file.stem, file, _component(metadata), metadata.get("control"), downscale, fault)


def _component(metadata: Mapping[str, str]) -> str:
    return metadata.get("component", COMPONENTS[0])


def _fault(metadata: Mapping[str, str], *, family: str, shapes: Mapping[str, Shapes]) -> str | None:
    """Of what it says of itself."""
    component, control = _component(metadata), metadata.get("control")
    if component not in shapes:
        return f"it changes {component}, which takes no LoRAs"
    if (made_for := metadata.get("family", family)) != family:
        return f"it was made for family {made_for}"
    if control is not None and control not in CONTROLS:
        return f"its control is {control}; the controls are {', '.join(CONTROLS)}"
    if control is not None and component != "denoiser":
        return f"it takes a reference video, and changes {component}; only stage 1 looks at one"
    if _downscale(metadata) not in ("1", "2", "4"):
        return f"its downscale is {_downscale(metadata)}; it must be 1, 2 or 4"
    return None


def _downscale(metadata: Mapping[str, str]) -> str:
    """LTX-2's own LoRAs say it in a name of their own."""
    return metadata.get("downscale", metadata.get("reference_downscale_factor", "1"))


def _beside(file: Path) -> dict[str, str]:
    """Of the file beside it only what a header could say; PEFT's config stands there as well."""
    try:
        said = json.loads(file.with_suffix(".json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file.with_suffix('.json')} cannot be read ({error}); it must be JSON") from error
    return {key: str(said[key]) for key in ("component", "control", "downscale") if isinstance(said, dict) and key in said}
