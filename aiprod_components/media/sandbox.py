"""uploaded bytes -> a child process with nothing but two pipes -> what it read in them

Decoders are where hostile files do harm, so they run elsewhere: one child for all media of one request, started for it and gone with
it. It is given no environment, no open file but its pipes, and the limits of `confine`, where it is said what these guarantee; and so
much time by the clock, for what waits instead of computing. It is killed and reaped whichever way the conversation ends: told to the
end, too late, or because whoever asked gives up (an exception in the caller). What it answers is data of a size known before.
"""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event, Timer
from typing import Any, cast

from aiprod_components.errors import InvalidMediaError, UnavailableError
from aiprod_components.media.messages import MAX_ERROR, receive, send

MEMORY_BYTES = 2 << 30  # of addresses; films of 8K take half of them and more
START_SECONDS = 60.0  # it takes a tenth of one; the machine may be busy
END_SECONDS = 5.0  # for a child that has closed its pipe to be gone
# So many children at a time, of which each may take a processor and its memory; others wait.
SEATS = BoundedSemaphore(os.cpu_count() or 1)
CHILD = """
import json, sys
sys.path[:], limits = json.loads(sys.argv[1])
from aiprod_components.media.sandboxed import serve
serve(**limits)
"""
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Limits:
    """What the tasks of one child may take together: seconds of computing and by the clock, bytes of memory."""

    cpu_seconds: int
    wall_seconds: float
    memory_bytes: int = MEMORY_BYTES


# Several times what the largest media that are allowed take: two pictures of 8K and a film, looked at; a film of 8K, read.
CHECKING = Limits(cpu_seconds=15, wall_seconds=60.0)
READING = Limits(cpu_seconds=300, wall_seconds=600.0)


@dataclass(frozen=True)
class Task:
    """Something to read: a method of `sandboxed.Readers`, the field and the bytes. `remedy` is what may help if the child dies of it."""

    kind: str
    field: str
    data: bytes
    remedy: str
    arguments: Mapping[str, Any]


class Answers:
    """What a child says to its tasks, in their order."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, *, late: Event) -> None:
        self._process, self._limits, self._late = process, limits, late
        self._pipe = cast(io.BufferedReader, process.stdout)

    def header(self, task: Task) -> dict[str, Any]:
        """The next answer to a task. Raises InvalidMediaError: the reader's own, or one that names the limit that ended the child."""
        try:
            header = receive(self._pipe)
        except ValueError:
            header = None
        if header is None:
            raise self._ended(task)
        if header.get("out_of_memory"):
            raise _refusal(task, f"takes more than {self._limits.memory_bytes >> 20} MiB of memory to read")
        if (message := header.get("error")) is not None:
            raise InvalidMediaError(str(message)[:MAX_ERROR], field=task.field)
        return header

    def fill(self, task: Task, buffer: memoryview) -> None:
        """The bytes behind a header: as many as there is room for."""
        filled = 0
        while filled < len(buffer):
            if not (count := self._pipe.readinto(buffer[filled:])):
                raise self._ended(task)
            filled += count

    def _ended(self, task: Task) -> InvalidMediaError:
        """Why the child says no more."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        if self._late.is_set():
            return _refusal(task, f"takes more than {self._limits.wall_seconds:g} s to read")
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return _refusal(task, f"takes more than {self._limits.cpu_seconds} s of computing to read")
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return lost(task, how)


@contextmanager
def ask(tasks: Sequence[Task], *, limits: Limits) -> Iterator[Answers]:
    """One child that is given all the tasks. Raises UnavailableError where none can be started."""
    with SEATS, _child(limits) as process:
        with _killed_after(process, START_SECONDS):
            _await_ready(process)
        with _killed_after(process, limits.wall_seconds) as late:
            _give(process, tasks)
            yield Answers(process, limits, late=late)


@contextmanager
def _child(limits: Limits) -> Iterator[subprocess.Popen[bytes]]:
    """Neither what is in the environment of this process nor what is open in it goes with it."""
    told = {"cpu_seconds": limits.cpu_seconds, "memory_bytes": limits.memory_bytes}
    command = [sys.executable, "-I", "-S", "-c", CHILD, json.dumps([_import_path(), told])]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, cwd="/")
    except OSError as error:
        raise _unavailable(str(error)) from error
    try:
        yield process
    finally:
        process.kill()
        for end in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):  # of what it did not come to read
                cast(io.BufferedIOBase, end).close()
        process.wait()


def _import_path() -> list[str]:
    """Where this process finds modules; an installation that is edited may be found without standing there."""
    here = Path(__file__).parents[2]
    return [str(here), *(str(Path(entry).resolve()) for entry in sys.path)]


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[Event]:
    late = Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    """Until then the child has seen nothing of an upload: that it fails is no fault of the file."""
    try:
        ready = receive(cast(io.BufferedReader, process.stdout))
    except ValueError:
        ready = None
    if ready is None:
        process.kill()
        told = cast(io.BufferedReader, process.stderr).read().decode(errors="replace").strip().splitlines()
        raise _unavailable(told[-1] if told else f"not ready after {START_SECONDS:g} s")


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(f"the sandbox that reads uploads could not be started here: {reason}")


def _give(process: subprocess.Popen[bytes], tasks: Sequence[Task]) -> None:
    """All at once: the child answers when it has them all, so neither waits for the other with a full pipe."""
    source = cast(io.BufferedWriter, process.stdin)
    with suppress(BrokenPipeError):  # a child that died is asked why when it does not answer
        for task in tasks:
            header = {"kind": task.kind, "field": task.field, "arguments": dict(task.arguments), "bytes": len(task.data)}
            send(source, header, task.data)
        source.close()


def lost(task: Task, how: str) -> InvalidMediaError:
    """The child is gone, or says what it cannot have found."""
    return _refusal(task, f"is damaged in a way that its reader did not survive ({how})")


def _refusal(task: Task, what: str) -> InvalidMediaError:
    return InvalidMediaError(f"{task.field} {what}; {task.remedy}", field=task.field)
