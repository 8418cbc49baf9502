"""stages without weights and without a cluster, in this process -> a real dispatcher over a real database and folder works on jobs"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request
from aiprod_components.pipelines.storage import dump_request
from aiprod_components.stages import stages_of
from deployments import dispatcher as module
from deployments.artifacts import file_key
from deployments.dispatcher import Dispatcher
from deployments.envelope import Receipt, Sealed
from deployments.jobs.records import Job, NewJob
from deployments.keeping import KeptStep
from deployments.orders import Order, Published, Report
from deployments.settings import ApiArgs
from deployments.shelf import Shelf

FAMILY = make_family("miniature")
RECORD = {"prompt": "a red ball", "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 4, "seed": 3}
FILES = {"thumbnail": "image/webp", "spritesheet": "image/jpeg", "video": "video/mp4"}

Act = Callable[[Order, asyncio.Event], Awaitable[None]]


class Stages:
    """Stand-ins for the stages of a family: each answers a text. `act` says what happens in them; `runs` are the steps that they ran."""

    def __init__(self, act: Act | None = None) -> None:
        self.act, self.runs = act, list[str]()
        self.shelf = Shelf()
        self.dispatcher: Dispatcher | None = None
        self.late_by = 0.0  # seconds that the message of a step's end takes
        self.queued_seconds = 0.0  # that a step waited, as its receipt says
        self._later: list[asyncio.Future[None]] = []
        self.failures: list[Exception] = []  # of the question for the fingerprint, one each time

    def handles(self) -> dict[str, Any]:
        return {name: _Handle(name, self) for name in stages_of(FAMILY)}

    async def fingerprint(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "weights"

    async def run(self, stage: str, order: Order, inputs: dict[str, Any], stop: asyncio.Event) -> Sealed:
        assert order.job is not None
        for source in inputs.values():
            await asyncio.to_thread(self.shelf.fetch, source, order.job)
        self.runs.append(order.step)
        await self._report(Report(order.job, order.step, stage))
        if self.act is not None:
            await self.act(order, stop)
        return await self._end(stage, order)

    async def _end(self, stage: str, order: Order) -> Sealed:
        job = order.job
        assert job is not None
        receipt, value, published = Receipt(order.step, stage, "here", self.queued_seconds, 0.1), "a text", None
        if job.publish is not None:
            store = self.shelf.store(job.artifacts)
            for name in FILES:
                await asyncio.to_thread(store.put, file_key(job.publish.prefix, name), name.encode())
            published = Published(job.publish.prefix, {name: (kind, len(name)) for name, kind in FILES.items()}, "frames")
        sealed = Sealed.of(published or value, receipts=(receipt,))
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[int] = loop.create_future()

        def note(size: int) -> None:
            loop.call_soon_threadsafe(kept.set_result, size)

        self.shelf.keep(sealed, job, then=note)
        report = self._report(Report(job, order.step, stage, receipt=receipt, kept_bytes=await kept, published=published))
        if self.late_by:
            self._later.append(asyncio.ensure_future(_after(self.late_by, report)))
        else:
            await report
        return sealed

    async def _report(self, report: Report) -> None:
        assert self.dispatcher is not None
        await self.dispatcher.report(report)


async def _after(seconds: float, report: Awaitable[None]) -> None:
    await asyncio.sleep(seconds)
    await report


class _Handle:
    def __init__(self, name: str, stages: Stages) -> None:
        self._name, self._stages = name, stages
        self.run, self.fingerprint = self, _Question(stages.fingerprint)

    def remote(self, order: Order, **inputs: Any) -> "_Response":
        stop = asyncio.Event()

        async def work() -> Sealed:
            there = {name: source if isinstance(source, KeptStep) else await source for name, source in inputs.items()}
            return await self._stages.run(self._name, order, there, stop)

        return _Response(asyncio.ensure_future(work()), stop)


class _Question:
    def __init__(self, ask: Callable[[], Awaitable[str]]) -> None:
        self.remote = ask


class _Response:
    """Cancelled, its stage is told, and it ends when the stage does, as a replica's does."""

    def __init__(self, task: "asyncio.Task[Sealed]", stop: asyncio.Event) -> None:
        self._task, self._stop = task, stop
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def __await__(self) -> Generator[Any, None, Sealed]:
        return asyncio.shield(self._task).__await__()

    def cancel(self) -> None:
        self._stop.set()


@asynccontextmanager
async def working(args: ApiArgs, stages: Stages, monkeypatch: pytest.MonkeyPatch, **config: Any) -> AsyncIterator[Dispatcher]:
    """A dispatcher that works on the jobs of these arguments."""
    monkeypatch.setattr(module, "check_reach", lambda args: None)
    monkeypatch.setattr(module, "find_stages", lambda family, stages_wanted=(), **names: stages.handles())
    dispatcher = stages.dispatcher = Dispatcher(args)
    await dispatcher.reconfigure({"slots": 2, "lease_seconds": 15, **config})
    try:
        yield dispatcher
    finally:
        await dispatcher.__del__()


def ask(dispatcher: Dispatcher, number: int, *, traceparent: str | None = None, webhook_url: str | None = None, **fields: Any) -> str:
    """A job's id, once it waits."""
    record, _ = dump_request(parse_request({**RECORD, **fields}, family=FAMILY))
    video_id = f"video_{number:032x}"
    known: dict[str, Any] = {"traceparent": traceparent, "webhook_url": webhook_url}
    dispatcher._storage.jobs.create(NewJob(video_id, "a", "miniature", "ti2vid_two_stages", record, {}, 1.0, 0, **known))
    return video_id


async def ended(dispatcher: Dispatcher, video_id: str, *, seconds: float = 40) -> Job:
    """The job once it is over."""
    for _ in range(int(seconds * 20)):
        job = await asyncio.to_thread(dispatcher._storage.jobs.get, video_id)
        if job is not None and job.completed_at is not None:
            return job
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{video_id} is not over after {seconds} s")
