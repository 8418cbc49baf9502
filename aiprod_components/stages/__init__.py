"""call -> value: one file per stage; each holds weights and answers calls, and knows nothing of who asks"""

from collections.abc import Callable
from typing import Any

from aiprod_components.families.base import Family
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.prompt_enhancer import PromptEnhancing
from aiprod_components.stages.refiner import Refiner
from aiprod_components.stages.text_encoder import TextEncoding
from aiprod_components.stages.upsampler import Upsampler
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.stages.vae_encoder import VAEEncoder

# In the order of the work. A stage's name is what calls, deployments and `serve_config.yaml` know it by.
STAGES: dict[str, Callable[..., Any]] = {
    "prompt_enhancer": PromptEnhancing,
    "text_encoder": TextEncoding,
    "vae_encoder": VAEEncoder,
    "denoiser": Denoiser,
    "upsampler": Upsampler,
    "refiner": Refiner,
    "vae_decoder": VAEDecoder,
}

# Stages that a family has only where it names what they need.
OPTIONAL: dict[str, Callable[[Family], bool]] = {"prompt_enhancer": lambda family: family.prompt_enhancer is not None}
# Stages that every family has.
ALWAYS: tuple[str, ...] = tuple(stage for stage in STAGES if stage not in OPTIONAL)


def stages_of(family: Family) -> tuple[str, ...]:
    """The stages that a family has, in the order of the work."""
    return tuple(stage for stage in STAGES if stage not in OPTIONAL or OPTIONAL[stage](family))
