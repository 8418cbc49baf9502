"""call -> value: one file per stage; each holds weights and answers calls, and knows nothing of who asks"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from aiprod_components.errors import ConfigError
from aiprod_components.families.base import Family
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.prompt_enhancer import PromptEnhancing
from aiprod_components.stages.ranks import Ranks
from aiprod_components.stages.refiner import Refiner
from aiprod_components.stages.text_encoder import TextEncoding
from aiprod_components.stages.upsampler import Upsampler
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.stages.vae_encoder import VAEEncoder

Stages = Mapping[str, Callable[..., Any]]

# In the order of the work. A stage's name is what calls, deployments and `serve_config.yaml` know it by.
STAGES: tuple[str, ...] = (
    "prompt_enhancer",
    "text_encoder",
    "vae_encoder",
    "audio_encoder",
    "denoiser",
    "upsampler",
    "refiner",
    "audio_decoder",
    "vae_decoder",
)

# Those of AIPROD v2's architecture, with whose networks sound is not made.
AIPROD_STAGES: dict[str, Callable[..., Any]] = {
    "prompt_enhancer": PromptEnhancing,
    "text_encoder": TextEncoding,
    "vae_encoder": VAEEncoder,
    "denoiser": Denoiser,
    "upsampler": Upsampler,
    "refiner": Refiner,
    "vae_decoder": VAEDecoder,
}


def _ltx2() -> Stages:
    from aiprod_components.stages.ltx2 import LTX2_STAGES  # its packages are an extra

    return {"prompt_enhancer": PromptEnhancing, **LTX2_STAGES}


# What a family's networks are -> the stages that compute with them.
ARCHITECTURES: dict[str, Callable[[], Stages]] = {"aiprod": lambda: AIPROD_STAGES, "ltx2": _ltx2}

# Stages that a family has only where it names what they need.
OPTIONAL: dict[str, Callable[[Family], bool]] = {
    "prompt_enhancer": lambda family: family.prompt_enhancer is not None,
    "audio_encoder": lambda family: family.makes_sound,
    "audio_decoder": lambda family: family.makes_sound,
}
# Stages that every family has.
ALWAYS: tuple[str, ...] = tuple(stage for stage in STAGES if stage not in OPTIONAL)


# Stages whose work several processes can share.
SHARED: frozenset[tuple[str, str]] = frozenset({("ltx2", "denoiser"), ("ltx2", "refiner")})


def make_stage(name: str, family: Family, *, device: torch.device, ranks: Ranks | None = None) -> Any:
    """The family's stage of that name, with its weights loaded, in this process or in several.

    Raises CheckpointError when they cannot be loaded, ConfigError for `ranks` where a stage works alone.
    """
    make = ARCHITECTURES[family.architecture]()[name]
    if ranks is None:
        return make(family, device=device)
    if (family.architecture, name) not in SHARED:
        raise ConfigError(f"stage {name} of {family.name} works in one process; leave placement_group_bundles out")
    return make(family, device=device, ranks=ranks)


def stages_of(family: Family) -> tuple[str, ...]:
    """The stages that a family has, in the order of the work."""
    return tuple(stage for stage in STAGES if stage not in OPTIONAL or OPTIONAL[stage](family))
