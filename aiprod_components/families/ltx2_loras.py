"""a LoRA's safetensors file, in diffusers' names or in LTX-2's own -> what it changes of diffusers' transformer, and by what

What LTX-2's own names are called in diffusers is for diffusers to say, by the code that loads a LoRA into its own pipeline.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from aiprod_components.errors import CheckpointError
from aiprod_components.models.lora import check_header, read_lora

OWN = "diffusion_model."  # how names begin that diffusers translates
FACTOR = ".lora_A.weight"
# What official LoRAs change beside the transformer: the projection of the text, which is made without LoRAs.
OF_THE_TEXT = "text_embedding_projection."


def shapes_of(file: Path, *, known: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Of the transformer's weights that a file changes, from its header. Names that are all `known` need no diffusers, which loads slowly.

    Raises CheckpointError when it is no LoRA, or none of the transformer.
    """
    shapes = check_header(file)
    return {layer: shapes[module] for layer, module in _layers(shapes, file, known=known).items()}


def factors_of(file: Path) -> dict[str, Tensor]:
    """As diffusers' loader takes them, a strength other than 1 multiplied into them. Raises CheckpointError as `shapes_of` does."""
    factors, tensors = read_lora(file).factors, dict[str, Tensor]()
    for layer, module in _layers(factors, file, known=()).items():
        pair = factors[module]
        tensors[f"transformer.{layer}.lora_A.weight"] = pair.down
        tensors[f"transformer.{layer}.lora_B.weight"] = pair.up if pair.strength == 1 else pair.up.float() * pair.strength
    return tensors


def _layers(modules: Collection[str], file: Path, *, known: Collection[str]) -> dict[str, str]:
    """The transformer's layers, and what the file calls them."""
    mine = [module for module in modules if not module.startswith(OF_THE_TEXT)]
    if not mine:
        raise CheckpointError(f"{file} changes the projection of the text alone, which is made without LoRAs; name one of the transformer")
    if all(module in known for module in mine):
        return {module: module for module in mine}
    from diffusers.loaders.lora_pipeline import LTX2LoraLoaderMixin

    named: Any = {f"{OWN}{module}{FACTOR}": module for module in mine}
    translated: Any = LTX2LoraLoaderMixin.lora_state_dict(named)
    return {layer.removeprefix("transformer.").removesuffix(FACTOR): module for layer, module in translated.items()}
