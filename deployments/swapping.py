"""a stage's weights, in the thread that runs it -> other weights in their place between two calls, or the old ones back"""

import gc
import traceback
from pathlib import Path
from typing import Any

import torch

from aiprod_components.families.base import Family
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.stages import make_stage
from aiprod_components.stages.base import SharedStage
from aiprod_components.stages.ranks import Ranks


class Swapper:
    """Holds a stage. `weights` is a folder of its own, None: it computes with the family's; `failure` why it is lost."""

    def __init__(self, family: Family, stage: str, *, device: torch.device, ranks: Ranks | None) -> None:
        self.family, self._name = family, stage
        self._device, self._ranks = device, ranks
        self._served = family
        self.weights: str | None = None
        self.stage: Any = None
        self.failure: str | None = None

    @property
    def fingerprint(self) -> str:
        return self._served.fingerprint

    def prepare(self, weights: str | None) -> Family:
        """The family with these weights of the stage, looked at but not loaded. Raises CheckpointError. In any thread."""
        return self.family if weights is None else with_weights(self.family, self._name, Path(weights))

    def take(self, family: Family, weights: str | None) -> None:
        """Serves what was prepared. Whatever it raises, the old stage is there again, or there is a `failure`. In the stage's thread."""
        if self.stage is None or self._has_room():
            self.stage = self._make(family)
        else:
            self._exchange(family)
        self._served, self.weights = family, weights

    def _has_room(self) -> bool:
        """For a second one beside it. Processes that share a network share one at a time."""
        if isinstance(self.stage, SharedStage) and self._ranks is not None:
            return False
        if self._device.type != "cuda":
            return True
        free, _ = torch.cuda.mem_get_info(self._device)
        return free > torch.cuda.memory_allocated(self._device)

    def _exchange(self, family: Family) -> None:
        self._drop()
        try:
            self.stage = self._make(family)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # in which there is half of what there was no room for
            self.failure = "its weights were to be exchanged, and the old ones cannot be loaded again"
            self._drop()
            self.stage = self._make(self._served)
            self.failure = None
            raise

    def _drop(self) -> None:
        self.close()
        self.stage = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _make(self, family: Family) -> Any:
        return make_stage(self._name, family, device=self._device, ranks=self._ranks)

    def close(self) -> None:
        """Other processes that have a part in the stage end."""
        if isinstance(self.stage, SharedStage):
            self.stage.close()
