"""bytes -> what the sandbox says to them: a refusal in words, or nothing where they are a picture or a video after all"""

from collections.abc import Iterable, Sequence
from itertools import starmap

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.sandbox import Answers, Limits, Task, ask

# A second of a quiet machine is less; the rest is for its caches and for a machine that is not.
BOUNDS = Limits(cpu_seconds=3, wall_seconds=60.0)
AS_PICTURE, AS_FOOTAGE = "check_picture", "check_footage"
READ: dict[str, tuple[str, dict[str, object]]] = {
    AS_PICTURE: ("read_picture", {"height": 16, "width": 16}),
    AS_FOOTAGE: ("read_footage", {"num_frames": 3, "height": 16, "width": 16, "period": "1/24"}),
}


def verdict(kind: str, data: bytes) -> str | None:
    """Of a child of its own."""
    return verdicts(kind, [data])[0]


def verdicts(kind: str, files: Sequence[bytes], *, limits: Limits = BOUNDS) -> list[str | None]:
    """Of one child. Raises AssertionError where a file ends it, for then it has found a fault."""
    tasks = [Task(kind, f"file_{index}", data, "", {}) for index, data in enumerate(files)]
    with ask(tasks, limits=limits) as answers:
        return [_said(task, answers) for task in tasks]


def _said(task: Task, answers: Answers) -> str | None:
    try:
        answers.header(task)
    except InvalidMediaError as error:
        return _reason(task, error)
    return None


def _reason(task: Task, error: InvalidMediaError) -> str:
    """A refusal's words, when it is the reader's own."""
    assert error.field == task.field and error.message.startswith(task.field)
    assert "did not survive" not in error.message and "takes more than" not in error.message
    return error.message.removeprefix(task.field)


def read(kind: str, files: Iterable[bytes], *, limits: Limits) -> int:
    """Reads the pixels of each, in one child; how many could be."""
    name, arguments = READ[kind]
    tasks = [Task(name, f"file_{index}", data, "", arguments) for index, data in enumerate(files)]
    with ask(tasks, limits=limits) as answers:
        return sum(starmap(_is_read, ((task, answers) for task in tasks)))


def _is_read(task: Task, answers: Answers) -> bool:
    pixels, left = memoryview(bytearray(16 * 16 * 3)), 3
    while left:
        try:
            header = answers.header(task)
        except InvalidMediaError as error:
            return not _reason(task, error)
        answers.fill(task, pixels)
        left -= header.get("times", left)
    return True
