"""call + sealed inputs -> one worker thread -> sealed result: the one adapter between a Stage and Ray Serve

The event loop only waits, so health checks and cancellations are answered while the stage computes in its thread.
"""

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import torch
from ray import serve
from ray.serve.exceptions import RayServeException

from aiprod_components.errors import CancelledError, UnavailableError
from aiprod_components.local import best_device
from aiprod_components.plan import Call, fill
from aiprod_components.stages import STAGES
from deployments.envelope import Receipt, Sealed, merge_receipts
from deployments.settings import FamilyArgs, StageConfig


class Stoppable:
    """Progress that ends the work at the next step boundary once it is stopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def advance(self, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise CancelledError(f"cancelled after step {done} of {total}")


class StageReplica:
    """One replica of one stage of one family; its weights are loaded before it is ready."""

    def __init__(self, family: FamilyArgs, stage: str) -> None:
        self._name, self._replica = stage, _replica_id()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=stage)
        # Built where it runs: a second thread that computes slows every operation of the first (docs/decisions.md, 25).
        loaded = self._thread.submit(STAGES[stage], family.make(), device=best_device())
        self._stage = loaded.result()
        self._failure: str | None = None

    async def run(self, step: str, call: Call[Any], sent_at: float, /, **inputs: Sealed) -> Sealed:
        """Answers a call whose inputs are keyed by their steps. Cancelled, it returns only when the thread is free again."""
        progress = Stoppable()
        context = contextvars.copy_context()  # else the trace ends here
        work = self._thread.submit(context.run, self._work, step, call, sent_at, inputs, progress)
        waiting = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            progress.stop()
            work.cancel()  # takes effect only when it has not begun
            while not waiting.done():
                with suppress(asyncio.CancelledError):  # cancelled again
                    await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()  # how it ended: nobody else will ask
            raise

    def _work(self, step: str, call: Call[Any], sent_at: float, inputs: Mapping[str, Sealed], progress: Stoppable) -> Sealed:
        queued = time.time() - max([sent_at, *(sealed.sealed_at for sealed in inputs.values())])
        started = time.perf_counter()
        try:
            value = self._stage.run(fill(call, {name: sealed.open() for name, sealed in inputs.items()}), progress)
        except torch.AcceleratorError as error:
            # The device context is lost for this process: only a new replica can go on.
            self._failure = f"{type(error).__name__} in step {step}"
            raise UnavailableError(f"stage {self._name} lost its device; it is being restarted, try again") from error
        # Two machines' clocks differ by more than an idle queue takes.
        receipt = Receipt(step, self._name, self._replica, max(queued, 0.0), time.perf_counter() - started)
        return Sealed.of(value, receipts=(*merge_receipts(inputs.values()), receipt))

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        config = StageConfig.model_validate(user_config)
        # Each thread has its own count: it must be set in the one that runs the stage.
        await asyncio.wrap_future(self._thread.submit(torch.set_num_threads, config.threads))

    async def check_health(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"stage {self._name} is broken: {self._failure}")


def _replica_id() -> str:
    try:
        return serve.get_replica_context().replica_id.unique_id
    except RayServeException:  # built by hand, in a test or a notebook
        return f"process-{os.getpid()}"
