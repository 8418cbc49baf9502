"""recipe and place -> a process of this machine that follows; what the graph has Ray for"""

import multiprocessing
import multiprocessing.connection
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import torch

from aiprod_components.errors import UnavailableError
from aiprod_components.stages.ranks import Following, Place, Recipe

# A fresh process takes seconds to import the networks' packages: one does, and the others are forked from it.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["aiprod_components.stages.ltx2.flow", "diffusers.models.transformers.transformer_ltx2", __name__])
CPU = torch.device("cpu")


class RankProcess:
    """A `Follower`."""

    def __init__(self, recipe: Recipe, place: Place) -> None:
        self._line, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_follow, args=(theirs, recipe, place), daemon=True)
        self._process.start()
        theirs.close()
        self._asked = 1  # it says when it has been made

    def tell(self, method: str, *arguments: Any) -> None:
        try:
            self._line.send((method, arguments))
        except OSError as error:
            raise UnavailableError("the process has ended") from error
        self._asked += 1

    def settle(self, timeout: float | None) -> None:
        while self._asked:
            try:
                if not self._line.poll(timeout):
                    raise UnavailableError(f"no answer within {timeout} s")
                self._line.recv()
            except (EOFError, OSError) as error:
                raise UnavailableError("the process has ended") from error
            self._asked -= 1

    def wait_for_end(self) -> None:
        multiprocessing.connection.wait([self._process.sentinel])

    def end(self) -> None:
        self._process.kill()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _follow(line: Connection, recipe: Recipe, place: Place) -> None:
    torch.set_num_threads(1)
    following = Following(recipe, place, device=CPU)
    line.send(None)
    while True:
        method, arguments = line.recv()
        getattr(following, method)(*arguments)
        line.send(None)
