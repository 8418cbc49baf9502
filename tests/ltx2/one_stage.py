"""a process for each stage -> orders as bytes in, results as bytes out, and which networks were loaded there"""

import multiprocessing
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import Silent
from aiprod_components.plan import Call, fill
from aiprod_components.stages import make_stage
from deployments.envelope import Sealed
from deployments.settings import FamilyArgs

LOADED: list[str] = []  # of a stage's process: the networks that it has loaded
STAGE: list[Any] = []  # and the stage itself


@dataclass(frozen=True)
class Parcel:
    """A pickle by protocol 5, and beside it the buffers that it left out."""

    content: bytes
    buffers: tuple[bytes, ...]

    @classmethod
    def of(cls, value: Any) -> "Parcel":
        left_out: list[pickle.PickleBuffer] = []
        content = pickle.dumps(value, protocol=5, buffer_callback=left_out.append)
        return cls(content, tuple(buffer.raw().tobytes() for buffer in left_out))

    def open(self) -> Any:
        return pickle.loads(self.content, buffers=self.buffers)


class StageProcesses:
    """A family's stages, each in a process of its own."""

    def __init__(self, pools: Mapping[str, ProcessPoolExecutor]) -> None:
        self._pools = pools

    def run(self, call: Call[Any], inputs: Mapping[str, Sealed]) -> tuple[Sealed, Parcel]:
        """The stage's answer, and the parcel that it came in."""
        parcel: Parcel = self._pools[call.stage].submit(_run, Parcel.of((call, dict(inputs)))).result()
        return parcel.open(), parcel

    def loaded(self) -> dict[str, list[str]]:
        """The networks of each process."""
        asked = {stage: pool.submit(_loaded) for stage, pool in self._pools.items()}
        return {stage: answer.result() for stage, answer in asked.items()}


@contextmanager
def stage_processes(args: FamilyArgs, stages: tuple[str, ...]) -> Iterator[StageProcesses]:
    """Started anew, so that a process has nothing but what it loads."""
    context = multiprocessing.get_context("spawn")
    pools = {stage: ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(args.model_dump(), stage)) for stage in stages}
    try:
        for pool in pools.values():
            pool.submit(_loaded)  # starts it: all load side by side
        yield StageProcesses(pools)
    finally:
        with ThreadPoolExecutor(len(pools)) as closing:  # all together: each takes a second
            list(closing.map(ProcessPoolExecutor.shutdown, pools.values()))


def _begin(args: dict[str, Any], stage: str) -> None:
    torch.set_num_threads(1)
    load = LTX2Family.load

    def noting(self: LTX2Family, name: str) -> nn.Module:
        LOADED.append(name)
        return load(self, name)

    LTX2Family.load = noting
    STAGE.append(make_stage(stage, FamilyArgs.model_validate(args).make(), device=torch.device("cpu")))


def _run(order: Parcel) -> Parcel:
    call, inputs = order.open()
    value = STAGE[0].run(fill(call, {name: sealed.open() for name, sealed in inputs.items()}), Silent())
    return Parcel.of(Sealed.of(value, receipts=()))


def _loaded() -> list[str]:
    return LOADED
