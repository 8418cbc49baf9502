"""objective -> steps -> checkpoints -> weights

A step depends only on the recipe and its number, so a run that is stopped and started again goes on as if it had not been.
A gradient that is not finite stops the run before it reaches the weights.
"""

import json
import math
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from aiprod_components.training.config import BaseRecipe, Schedule
from aiprod_components.training.optimizer import MatrixOptimizer


class Objective(Protocol):
    """What is trained, on what, towards what."""

    @property
    def model(self) -> nn.Module: ...

    def loss(self, step: int) -> dict[str, Tensor]:
        """The batch of `step` through the model; `loss` is descended, the rest is logged."""
        ...

    def finish(self, model: nn.Module) -> None:
        """Writes the averaged weights where the family finds them."""
        ...


@runtime_checkable
class Examined(Protocol):
    """An objective that knows data which training never sees."""

    def held_out(self, model: nn.Module) -> dict[str, Tensor]:
        """Figures of the averaged weights on it, logged at every checkpoint."""
        ...


@runtime_checkable
class Solved(Protocol):
    """A component whose weights are computed at once."""

    def solve(self) -> None:
        """Computes the weights and writes them where the family finds them."""
        ...


def learning_rate(schedule: Schedule, *, step: int) -> float:
    """Of a step: a linear rise over the warm-up, then half a cosine down to a hundredth of the peak."""
    progress = (step + 1) / schedule.steps
    if progress < schedule.warmup:
        return schedule.learning_rate * progress / schedule.warmup
    fall = (progress - schedule.warmup) / (1 - schedule.warmup)
    return schedule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


class Trainer:
    """Runs an objective to its last step. `folder` keeps the checkpoint and the log (`log.jsonl`)."""

    def __init__(self, objective: Objective, recipe: BaseRecipe, *, folder: Path) -> None:
        self.objective, self.schedule, self.folder = objective, recipe.schedule, folder
        self.device = torch.device(recipe.device)
        torch.set_num_threads(recipe.threads)
        objective.model.to(self.device)
        self.average = deepcopy(objective.model).requires_grad_(False)
        # Kept with the run: where a run ends is often where it began to read.
        self.start = deepcopy(self.average.state_dict())
        self.optimizer = MatrixOptimizer(objective.model, weight_decay=recipe.schedule.weight_decay)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        self._resume()
        saved = logged = time.monotonic()
        while self.step < self.schedule.steps:
            figures = self._train_step()
            self.step += 1
            now = time.monotonic()
            if self.step % 25 == 0:
                self._log(figures, seconds_a_step=(now - logged) / 25)
                logged = time.monotonic()
            if now - saved > self.schedule.checkpoint_every_seconds or self.step == self.schedule.steps:
                self._save()
                self._examine()
                saved = time.monotonic()
        self.objective.finish(self._result())

    def _result(self) -> nn.Module:
        """The share of the way from the weights at the start to the averaged ones."""
        result = deepcopy(self.average)
        with torch.no_grad():
            for name, parameter in result.named_parameters():
                parameter.copy_(torch.lerp(self.start[name], parameter, self.schedule.share))
        return result

    def _train_step(self) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16):
            figures = self.objective.loss(self.step)
        figures["loss"].backward()
        parameters, clip = self.objective.model.parameters(), self.schedule.gradient_clip
        figures["gradient_norm"] = nn.utils.clip_grad_norm_(parameters, clip, error_if_nonfinite=True)
        self.optimizer.step(learning_rate(self.schedule, step=self.step))
        # The average follows quickly at first, so that short runs are not averages of their start.
        decay = min(self.schedule.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[Tensor] = list(self.average.parameters())
            trained: list[Tensor] = list(self.objective.model.parameters())
            torch._foreach_lerp_(averaged, trained, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        return figures

    def _examine(self) -> None:
        if isinstance(self.objective, Examined):
            with torch.autocast(self.device.type, torch.bfloat16):
                figures = self.objective.held_out(self.average)
            self._write(figures)

    def _log(self, figures: dict[str, Tensor], *, seconds_a_step: float) -> None:
        self._write({**figures, "seconds": torch.tensor(seconds_a_step)})

    def _write(self, figures: dict[str, Tensor]) -> None:
        record: dict[str, Any] = {name: round(value.item(), 5) for name, value in figures.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, **record}) + "\n")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.objective.model.state_dict(),
            "average": self.average.state_dict(),
            "start": self.start,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.folder / "checkpoint.partial")
        (self.folder / "checkpoint.partial").replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        checkpoint = self.folder / "checkpoint.pt"
        if not checkpoint.is_file():
            return
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.objective.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.start = state["start"]
        self.optimizer.load_state_dict(state["optimizer"])
