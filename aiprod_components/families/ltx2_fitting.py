"""options of a family -> how its networks are made to fit a card, or why they cannot be"""

import math
from dataclasses import dataclass

import torch

from aiprod_components.errors import ConfigError

FLOAT8 = "float8"  # that is how weights are kept; what is computed with is bfloat16
PRECISIONS: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32, FLOAT8: torch.bfloat16}
# As they are in the config -> as diffusers knows them, the fastest first.
ATTENTIONS = {"flash3": "_flash_3", "xformers": "xformers", "native": "native"}
AUTO, GROUP = "auto", "group"
OPTIONS: dict[str, tuple[str, ...]] = {
    "precision": tuple(PRECISIONS),
    "attention": (AUTO, *ATTENTIONS),
    "offload": ("none", GROUP),
    "tiling": (AUTO, "always", "never"),
}


@dataclass(frozen=True)
class Fitting:
    """How a checkpoint is computed.

    `precision` is that of weights and sums; float8 keeps the transformer's and the text encoder's weights in half the memory. `compile`
    makes the transformer's blocks faster, after minutes at the first request of every kind. `attention` is its implementation (auto: the
    fastest that works on the device). `offload: group` keeps the transformer and the text encoder in the machine's memory, and on the card
    only the blocks at work. `tiling` is whether the VAE sees a video tile by tile (auto: a large one). `cache` leaves out all blocks of the
    transformer but the first where what that changes differs by less than this part from what it changed before (0: none are left out).

    Raises ConfigError for what is no option, and for options that do not go together on any device.
    """

    precision: str = "bfloat16"
    compile: bool = False
    attention: str = AUTO
    offload: str = "none"
    tiling: str = AUTO
    cache: float = 0.0

    def __post_init__(self) -> None:
        for option, values in OPTIONS.items():
            if (value := getattr(self, option)) not in values:
                raise ConfigError(f"{option} {value!r} of ltx2 is unknown; it is one of {', '.join(values)}")
        if not 0 <= self.cache < math.inf:
            raise ConfigError(f"cache {self.cache} of ltx2 is no threshold; it is 0 (none) or more, such as 0.05")
        if self.cache and self.offload == GROUP:
            # The order is that of the first pass, and each block sends for the next.
            raise ConfigError("cache and offload: group do not go together (blocks are fetched in their order); leave out one of them")
        if self.compile and self.offload == GROUP:
            raise ConfigError("compile and offload: group do not go together (blocks come and go between two steps); leave out one of them")
        if self.compile and self.precision == FLOAT8:
            # Each layer widens its own weights, which the compiler does not see through: 46 breaks in a block, and no gain.
            raise ConfigError("compile and precision: float8 do not go together; leave out one of them")
        if self.attention == "flash3" and self.precision == "float32":
            raise ConfigError("attention flash3 computes in half precision only; with precision: float32 leave it out")

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return PRECISIONS[self.precision]


AS_IT_IS = Fitting()
