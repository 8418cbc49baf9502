"""what a stage is, and what it may ask of whoever runs it"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from aiprod_components.plan import Call

C = TypeVar("C", bound=Call[Any], contravariant=True)
R = TypeVar("R", covariant=True)


@runtime_checkable
class Progress(Protocol):
    """How a stage says how far it is."""

    def advance(self, done: int, total: int) -> None:
        """Step `done` of `total` has ended. Raises CancelledError when the work is not wanted any more."""
        ...


@runtime_checkable
class Stage(Protocol[C, R]):
    """Holds weights and answers calls."""

    def run(self, call: C, progress: Progress) -> R: ...


@runtime_checkable
class StepState(Protocol):
    """Where a stepped call is."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


S = TypeVar("S", bound=StepState)


@runtime_checkable
class SteppedStage(Protocol[C, S, R]):
    """A stage that works in steps, so that it can be watched, stopped and batched between any two of them."""

    def start(self, call: C) -> S: ...

    def step(self, states: Sequence[S]) -> list[S]:
        """One sampler step for a batch of states whose latents have one shape."""
        ...

    def finish(self, state: S) -> R: ...

    def preview(self, before: S, after: S) -> UInt8[Tensor, "T h w 3"] | None:
        """A few small frames of what the result will be, by the step between two states; None where the family cannot tell."""
        ...


@runtime_checkable
class SharedStage(Protocol):
    """A stage that other processes may have a part in."""

    @property
    def failure(self) -> str | None:
        """Why it cannot work any more; None: it can."""
        ...

    def close(self) -> None:
        """Ends those processes."""
        ...


def run_steps(
    stage: SteppedStage[C, S, R], call: C, progress: Progress, *, watch: Callable[[S, S], None] = lambda before, after: None
) -> R:
    """A stepped stage as a one-shot one: start, step until done, finish. `watch` sees the states before and after each step, first."""
    state = stage.start(call)
    while state.done < state.total:
        before = state
        (state,) = stage.step([before])
        watch(before, state)
        progress.advance(state.done, state.total)
    return stage.finish(state)
