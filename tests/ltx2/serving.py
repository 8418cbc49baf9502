"""a config -> the graph in a cluster that another process holds: this one may hold a cluster already; and configs deployed after it"""

import multiprocessing
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ray.serve.schema import ServeDeploySchema

from tests.graph import PATIENCE, running_graph, serve_client


class Serving:
    """A running graph; `deploy` is what `serve deploy` does."""

    def __init__(self, url: str, connection: Connection) -> None:
        self.url, self._connection = url, connection

    def deploy(self, config: dict[str, Any]) -> None:
        self._connection.send(config)
        _received(self._connection)


@contextmanager
def serving(config: dict[str, Any], *, data: Path) -> Iterator[Serving]:
    """Raises RuntimeError when it does not get ready."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(there, config, data))
    process.start()
    there.close()
    try:
        yield Serving(_received(here), here)
    finally:
        here.close()
        process.join(90)
        if process.is_alive():
            process.terminate()
            process.join(30)


def _received(connection: Connection) -> str:
    """What the other process says. Raises RuntimeError with what went wrong there."""
    if not connection.poll(PATIENCE + 60):
        raise RuntimeError("the process that holds the graph does not answer")
    fault, said = connection.recv()
    if fault:
        raise RuntimeError(said)
    return said


def _hold(connection: Connection, config: dict[str, Any], data: Path) -> None:
    """Until the connection is closed."""
    try:
        with running_graph(config, data=data) as graph:
            connection.send((False, graph.url))
            while True:
                following = connection.recv()
                serve_client().deploy_apps(ServeDeploySchema.model_validate(following))
                connection.send((False, "deployed"))
    except EOFError:
        return
    except Exception:  # noqa: BLE001 - told to whoever waits for it
        connection.send((True, traceback.format_exc()))
