"""a pass through the transformer -> its first block, then the others, or what they added when last they were computed

First-block caching: where the first block changes the tokens nearly as it did before, the others would add nearly what they added. What
that was is of one request and one kind of pass. It is handed in with each pass and handed out again, so whoever has the request has it,
and it ends with the request. diffusers' own hooks remember by names that are never forgotten, and know one stream of tokens and a text:
where blocks are left out they hand on the text of LTX-2's block as its sound.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aiprod_components.calls import Pass

Streams = tuple[Tensor, Tensor]  # tokens of pictures and of sound, as blocks see them
Block = Callable[..., Streams]


@dataclass(frozen=True)
class Computed:
    """Of a row's last pass through all blocks: what the first changed, and what the others added to that."""

    changed: Streams
    added: Streams


@dataclass(frozen=True)
class Remembered:
    """What one request remembers of each kind of pass. Pickled it is empty: it is hundreds of megabytes, which are computed again."""

    passes: Mapping[Pass, Computed] = field(default_factory=dict[Pass, Computed])

    def __reduce__(self) -> tuple[type["Remembered"], tuple[()]]:
        return Remembered, ()


class Course:
    """A batch on its way through the blocks: `computed` is what its rows remembered (None: nothing yet), and afterwards remember."""

    def __init__(self, computed: Sequence[Computed | None]) -> None:
        self.computed = computed

    def through(self, blocks: Iterable[Block], *, threshold: float) -> Iterator[Block]:
        """What the transformer calls as its blocks. It asks for the next one when it has called the last."""
        first, *others = blocks
        opening = last = _Watched(first)
        yield opening
        changed = _per_row(opening.made, opening.taken)
        if known := self._known(changed, threshold=threshold):
            yield lambda **given: _added(given, known)
            return
        for block in others:
            last = _Watched(block)
            yield last
        self.computed = [Computed(*both) for both in zip(changed, _per_row(last.made, opening.made), strict=True)]

    def _known(self, changed: list[Streams], *, threshold: float) -> list[Computed]:
        """What stands for the other blocks, if it does for every row. Looks at the device once."""
        known = [row for row in self.computed if row is not None]
        if len(known) < len(changed):
            return []
        pairs = [pair for now, then in zip(changed, known, strict=True) for pair in zip(now, then.changed, strict=True)]
        # A stream that stays as it is gives 0/0, which is below no threshold.
        return known if bool(torch.stack([_distance(now, then) for now, then in pairs]).max() < threshold) else []


class CachedBlocks(nn.ModuleList):
    """A transformer's blocks under their own names. What goes through them on a course may leave out all but the first.

    Nothing is hooked into the blocks themselves, so they compile as they are.
    """

    def __init__(self, blocks: nn.ModuleList, *, threshold: float) -> None:
        super().__init__(blocks)
        self._threshold = threshold
        self._course: Course | None = None

    def __iter__(self) -> Iterator[Any]:
        blocks: Iterator[Any] = super().__iter__()
        return blocks if self._course is None else self._course.through(blocks, threshold=self._threshold)

    @contextmanager
    def on(self, course: Course) -> Iterator[None]:
        """What is asked meanwhile is on this course."""
        self._course = course
        try:
            yield
        finally:
            self._course = None


@contextmanager
def course_of(transformer: Any, computed: Sequence[Computed | None]) -> Iterator[Course]:
    """The next pass, of rows that remember this; nothing is remembered of a transformer whose blocks are not cached."""
    course, blocks = Course(computed), transformer.transformer_blocks
    if not isinstance(blocks, CachedBlocks):
        yield course
        return
    with blocks.on(course):
        yield course


def cache_blocks(transformer: Any, *, threshold: float) -> None:
    """From now on a pass on a course ends after the first block, where what that changes is as before but for a part below `threshold`."""
    transformer.transformer_blocks = CachedBlocks(transformer.transformer_blocks, threshold=threshold)


class _Watched:
    """A block, and what went through it."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def __call__(self, **given: Any) -> Streams:
        self.taken = _streams(given)
        self.made = self._block(**given)
        return self.made


def _streams(given: Mapping[str, Any]) -> Streams:
    """Of a block's arguments."""
    return given["hidden_states"], given["audio_hidden_states"]


def _per_row(after: Streams, before: Streams) -> list[Streams]:
    """The difference, in memory of each row's own: a row may outlive the others."""
    rows = zip(*(stream.split(1) for stream in (*after, *before)), strict=True)
    return [(pictures - pictures_before, sound - sound_before) for pictures, sound, pictures_before, sound_before in rows]


def _added(given: Mapping[str, Any], known: Sequence[Computed]) -> Streams:
    parts = zip(_streams(given), zip(*(row.added for row in known), strict=True), strict=True)
    pictures, sound = (stream + (added[0] if len(added) == 1 else torch.cat(added)) for stream, added in parts)
    return pictures, sound


def _distance(now: Tensor, then: Tensor) -> Tensor:
    """The mean absolute difference, as a part of the mean absolute value; in float32, whatever is computed in."""
    return (now - then).abs().mean(dtype=torch.float32) / then.abs().mean(dtype=torch.float32)
