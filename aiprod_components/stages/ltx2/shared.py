"""a network on each of several ranks -> asked as one"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import LoraUse
from aiprod_components.errors import ConfigError
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.ltx2.network import JointNetwork, Predicted, Row
from aiprod_components.stages.ranks import RankGroup, Ranks
from aiprod_components.values import VideoShape


class SharedNetwork:
    """`JointNetwork` on every rank, of whose pictures each rank computes some tokens."""

    def __init__(self, family: LTX2Family, transformer: str, *, device: torch.device, fused: str | None, ranks: Ranks) -> None:
        """`fused` as for `JointNetwork`. Raises ConfigError for a cache, and when the heads cannot be divided among the ranks."""
        if family.unshared is not None:
            raise ConfigError(family.unshared)
        self._ranks = RankGroup(partial(_make, family, transformer, fused), ranks, device=device)

    @property
    def failure(self) -> str | None:
        """Why it cannot predict any more."""
        return self._ranks.failure

    def positions(self, video: VideoShape) -> tuple[Float[Tensor, "1 3 S 2"], Float[Tensor, "1 1 L 2"]]:
        return self._ranks.made.positions(video)

    def predict(self, rows: Sequence[Row], *, video: VideoShape) -> list[Predicted]:
        """In the order of the rows. Raises UnavailableError when a rank is lost."""
        return self._ranks.together("predict", rows, video=video)

    def use_loras(self, uses: tuple[LoraUse, ...]) -> None:
        self._ranks.together("use_loras", uses)

    def close(self) -> None:
        self._ranks.close()


def _make(family: LTX2Family, transformer: str, fused: str | None, device: torch.device) -> JointNetwork:
    return JointNetwork(family, transformer, device=device, fused=fused)
