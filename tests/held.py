"""a cluster that another process holds, as this one may hold one already -> what is asked of it, done there"""

import multiprocessing
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from tests.graph import PATIENCE

# What is said of the cluster once it is there, and what can be asked of it.
Held = tuple[str, Mapping[str, Callable[..., Any]]]
Ask = Callable[..., Any]  # by its name, with its arguments


@contextmanager
def held(hold: Callable[..., AbstractContextManager[Held]], *arguments: Any) -> Iterator[tuple[str, Ask]]:
    """Arguments and answers are pickled. Raises RuntimeError with what went wrong there."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(there, hold, arguments))
    process.start()
    there.close()
    lock = threading.Lock()

    def ask(what: str, *arguments: Any) -> Any:
        with lock:
            here.send((what, arguments))
            return _received(here)

    try:
        yield _received(here), ask
    finally:
        here.close()
        process.join(90)
        if process.is_alive():
            process.terminate()
            process.join(30)


def _received(connection: Connection) -> Any:
    if not connection.poll(PATIENCE + 60):
        raise RuntimeError("the process that holds the cluster does not answer")
    fault, said = connection.recv()
    if fault is not None:
        raise RuntimeError(fault)
    return said


def _hold(connection: Connection, hold: Callable[..., AbstractContextManager[Held]], arguments: tuple[Any, ...]) -> None:
    """Until the connection is closed."""
    try:
        with hold(*arguments) as (said, actions):
            connection.send((None, said))
            while True:
                what, given = connection.recv()
                connection.send((None, actions[what](*given)))
    except EOFError:
        return
    except Exception:  # noqa: BLE001 - told to whoever waits for it
        with suppress(OSError):
            connection.send((traceback.format_exc(), None))
