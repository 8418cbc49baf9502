"""call -> the stage's own loop, watched: steps counted, pictures of what is coming, an end between two steps"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiprod_components.errors import CancelledError
from aiprod_components.plan import Call
from aiprod_components.stages.base import SteppedStage, run_steps

TELL_SECONDS = 0.5  # between two messages about one call
MARKS = 8  # of a call's progress at most, for its trace

Tell = Callable[[int, int], None]
Show = Callable[[Any], None]


class Watched:
    """Progress that can be stopped, counts, and tells of it, but not too often.

    `marks` are when so many steps of so many were done, a few for the whole call; `batches` how often so many calls took a step together.
    """

    def __init__(self, tell: Tell | None = None, *, count: Callable[[], None] = lambda: None) -> None:
        self._tell, self._count = tell, count
        self._stopped = threading.Event()
        self._told = time.monotonic()
        self.marks: list[tuple[int, int, float]] = []
        self.batches: Counter[int] = Counter()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def is_due(self) -> bool:
        """Whether somebody listens and has not been told for a while."""
        return self._tell is not None and time.monotonic() - self._told >= TELL_SECONDS

    def advance(self, done: int, total: int) -> None:
        self._count()
        if total and done * MARKS // total > (done - 1) * MARKS // total:
            self.marks.append((done, total, time.time()))
        if self._stopped.is_set():
            raise CancelledError(f"cancelled after step {done} of {total}")
        if self._tell is not None and self.is_due:
            self._told = time.monotonic()
            self._tell(done, total)


def run_call(stage: Any, call: Call[Any], progress: Watched, *, show: Show) -> Any:
    """The stage's answer. `show` gets small frames of what a stepped stage is making, as often as there is a message about it."""
    if not isinstance(stage, SteppedStage):
        return stage.run(call, progress)

    def watch(before: Any, after: Any) -> None:
        progress.batches[1] += 1
        # Before `advance` tells of the step, so that the message can name the picture.
        if progress.is_due and (frames := stage.preview(before, after)) is not None:
            show(frames)

    return run_steps(stage, call, progress, watch=watch)
