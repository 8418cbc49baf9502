"""job table -> a claimed job -> its plan walked over the stages -> its video's place, written into its row

Claims only what it has slots for, so what waits, waits in the table. Its heartbeats hold its claims; whatever it writes is refused
once a claim is lost, and then its calls are cancelled.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from prometheus_client.metrics_core import Metric
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from aiprod_components.errors import (
    AiprodError,
    InvalidRequestError,
    MissingArtifactError,
    StoreRefusedError,
    StoreUnavailableError,
    UnavailableError,
    WeightsChangedError,
)
from aiprod_components.stages import stages_of
from deployments.assigning import Assigner
from deployments.jobs.records import Claim, Job
from deployments.offered import make_offer
from deployments.orders import Report
from deployments.publishing import check_provenance
from deployments.runner import find_stages
from deployments.running import JobRun
from deployments.settings import ApiArgs, DispatcherConfig
from deployments.storage import Storage, check_reach, open_storage
from deployments.telemetry.account import Account
from deployments.telemetry.exporting import flush
from deployments.telemetry.jobs import claim_fields, record_assigning
from deployments.telemetry.logs import saying
from deployments.telemetry.starting import start
from deployments.upkeep import Upkeep

log = logging.getLogger("ray.serve")

POLL_SECONDS = 0.5  # between two looks at the queue, where nobody says that there is something
FLUSH_SECONDS = 0.5
RETRY_SECONDS = 2.0
REPLAN_SECONDS = 0.1  # twice that of a job's first attempt whose stage has other weights, and twice as much of each further one
WAIT_SECONDS = 3.0  # of a job that goes back to the queue because nobody is ready for it


class Dispatcher:
    """Works on jobs. Several of them share the queue."""

    def __init__(self, args: ApiArgs) -> None:
        start()
        check_reach(args)
        if args.provenance is not None:
            check_provenance(args.provenance)
        self._args = args
        self._storage: Storage = open_storage(args)
        self._families = make_offer(args).families
        self._assigner = Assigner(args, self._families, self._storage)
        self._config = DispatcherConfig()
        self._owner = f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
        self._runs: dict[Claim, JobRun] = {}
        self._tasks: dict[Claim, asyncio.Task[None]] = {}
        self._families_of: dict[Claim, str] = {}
        self._handles: dict[str, dict[str, DeploymentHandle]] = {}
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._heart: asyncio.Task[None] | None = None
        self._heart_thread = ThreadPoolExecutor(1, "heart")  # of its own: whatever else hangs, claims are held
        self._account = Account(self._owner)
        # Attempts whose end is being written and told, of which nothing is left to be stopped; and those that somebody else has.
        self._over, self._lost = set[Claim](), set[Claim]()
        self._upkeep = Upkeep(args, self._assigner, self._account)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        self._config = self._upkeep.config = DispatcherConfig.model_validate(user_config)
        if not self._loops:
            rounds = (self._claim_due, 0), (self._flush, FLUSH_SECONDS), *self._upkeep.rounds
            self._loops = [asyncio.create_task(self._forever(act, pause)) for act, pause in rounds]
            self._heart = asyncio.create_task(self._forever(self._beat, 0))

    async def wake(self) -> None:
        """There is something in the queue."""
        self._wake.set()

    async def report(self, report: Report) -> bool:
        """What a stage says of a job's step. False: the job is not that attempt's any more, stop."""
        self._account.reported(report)
        claim = report.job.claim
        run, task = self._runs.get(claim), self._tasks.get(claim)
        if run is None or task is None or task.cancelling():
            # Another dispatcher's, or one that nobody works on any more.
            if held := await asyncio.to_thread(self._storage.jobs.report, claim):
                return held
            await asyncio.to_thread(self._assigner.note_late, report)
            return False
        begins = not run.progress
        run.note(report)
        if begins:
            await self._write(claim, run)
        await asyncio.to_thread(self._assigner.note_kept, report)
        return True

    async def cancel(self, job_id: str) -> bool:
        """Ends the work on a job that was cancelled; answers when its replicas are free. False: it is not worked on here."""
        tasks = {claim: task for claim, task in self._tasks.items() if claim.id == job_id}
        for claim in tasks.keys() - self._over:
            _end(tasks[claim])
        if tasks:
            await asyncio.wait(tasks.values())
        return bool(tasks)

    async def activity(self) -> dict[str, dict[str, dict[str, int]]]:
        """Of the jobs worked on here, by family and stage: how many a stage computes for, and how many wait for it."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for run in self._runs.values():
            stages = counts.setdefault(run.assignment.job.family, {})
            for what, names in zip(("running", "queued"), run.at_work(), strict=True):
                for name in names:
                    stage = stages.setdefault(name, {"running": 0, "queued": 0})
                    stage[what] += 1
        return counts

    async def figures(self) -> list[Metric]:
        """What it has counted."""
        return self._account.figures()

    async def check_health(self) -> None:
        if ended := [task for task in (*self._loops, self._heart) if task is not None and task.done()]:
            raise RuntimeError(f"the dispatcher's loop has ended: {ended[0]}")

    async def __del__(self) -> None:
        """Serve calls this when the replica is taken down in order: its jobs go back to the queue."""
        for task in self._loops:
            task.cancel()
        claims = list(self._tasks)
        for task in self._tasks.values():
            _end(task)
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        for claim in claims:
            await asyncio.to_thread(self._storage.jobs.release, claim)
        if self._heart is not None:
            self._heart.cancel()
        await asyncio.to_thread(flush)

    async def _forever(self, act: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            try:
                await act()
            except Exception:
                # A database that is away for a while must not end the dispatcher; leases run out meanwhile, as they should.
                log.exception("%s failed; trying again", getattr(act, "__name__", act))
                await asyncio.sleep(RETRY_SECONDS)
            if pause:
                await asyncio.sleep(pause)

    async def _claim_due(self) -> None:
        """Claims what there is room for, then waits until somebody says that there is more, or a while."""
        await self._claim_all()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        self._wake.clear()

    async def _claim_all(self) -> None:
        while free := self._families_with_room():
            job = await asyncio.to_thread(self._storage.jobs.claim, self._owner, self._config.lease_seconds, free)
            if job is None:
                return
            claim = Claim.of(job)
            self._families_of[claim] = job.family
            self._tasks[claim] = asyncio.create_task(self._work(job))
            self._tasks[claim].add_done_callback(lambda task, claim=claim: self._leave(claim))

    def _families_with_room(self) -> list[str]:
        """Each has its own slots: one whose stages do not answer holds up no other."""
        taken = Counter(self._families_of[claim] for claim in self._tasks)
        return [family for family in self._families if taken[family] < self._config.slots]

    def _leave(self, claim: Claim) -> None:
        self._tasks.pop(claim, None)
        self._families_of.pop(claim, None)
        self._runs.pop(claim, None)
        self._over.discard(claim)
        self._lost.discard(claim)
        self._wake.set()

    async def _beat(self) -> None:
        """Holds the claims. Those that are lost are left."""
        await asyncio.sleep(min(self._config.lease_seconds / 4, 1.0))
        if claims := list(self._tasks):
            beat = partial(self._storage.jobs.heartbeat, claims, self._config.lease_seconds)
            held = await asyncio.get_running_loop().run_in_executor(self._heart_thread, beat)
            for claim in (set(claims) & self._tasks.keys()) - held - self._over:
                self._lost.add(claim)
                _end(self._tasks[claim])

    async def _flush(self) -> None:
        for claim, run in list(self._runs.items()):
            if run.is_dirty:
                await self._write(claim, run)

    async def _write(self, claim: Claim, run: JobRun) -> None:
        run.is_dirty = False
        await asyncio.to_thread(self._storage.jobs.report, claim, progress=run.progress, stages=run.stages)

    async def _work(self, job: Job) -> None:
        """One attempt, and what is told of it."""
        claim, began = Claim.of(job), time.time()
        self._account.claimed(job)
        with saying(**claim_fields(claim, job.traceparent)):
            try:
                await self._attempt(job, claim)
            finally:
                self._over.add(claim)
                await self._tell(job, claim, began)

    async def _tell(self, job: Job, claim: Claim, began: float) -> None:
        """By what its row says now."""
        run = self._runs.get(claim)
        with suppress(UnavailableError):  # then it is told by nobody: an attempt does not end later for that
            now = await asyncio.to_thread(self._storage.jobs.get, job.id)
            self._account.over(job, now, began, stages=[] if run is None else run.stages, is_lost=claim in self._lost)

    async def _attempt(self, job: Job, claim: Claim) -> None:
        """However it ends, the row says so; a claim that was lost writes nothing."""
        began = time.time()
        try:
            if (run := await self._assign(job)) is None:
                return
            record_assigning(job, began)
            self._runs[claim] = run
            output = await run.walk()
            await self._settle(self._storage.jobs.finish, claim, output, run.stages, self._args.retention_hours * 3600)
        except asyncio.CancelledError:
            raise
        except StoreRefusedError as error:
            # It may yet be set right, and no worker needs to be lost for the job to be tried again; but not without end.
            tries, pause = self._config.max_attempts, self._config.refused_seconds
            await self._settle(self._storage.jobs.retry, claim, _error(error), tries, pause)
        except WeightsChangedError as error:
            # Nor was it its fault: at once, later and later while the stage's replicas differ.
            log.info("%s is planned anew: %s", job.id, error)
            self._assigner.note_refusal(job.family, error)
            await self._settle(self._storage.jobs.release, claim, min(REPLAN_SECONDS * 2 ** min(job.attempt, 10), WAIT_SECONDS))
        except (NotReadyError, StoreUnavailableError, BackPressureError) as error:
            # Nobody was lost: the job waits until there is somebody to do it, and somewhere to put it.
            log.info("%s goes back to the queue: %s", job.id, error)
            self._assigner.forget_fingerprint(job.family)
            await self._settle(self._storage.jobs.release, claim, WAIT_SECONDS)
        except (UnavailableError, MissingArtifactError) as error:
            self._assigner.forget_fingerprint(job.family)
            attempts = self._config.max_attempts
            await self._settle(self._storage.jobs.retry, claim, _error(error, code="worker_lost"), attempts, RETRY_SECONDS)
        except InvalidRequestError as error:
            await self._fail(claim, _error(error))
        except Exception:
            # Of what is not the request's fault a client learns nothing: it may name the server's folders.
            log.exception("job %s failed", job.id)
            await self._fail(claim, {"code": "internal", "message": "the server failed on this job; its log says why under the job's id"})

    async def _assign(self, job: Job) -> JobRun | None:
        """None: the claim is lost already. Raises NotReadyError when the family's stages, or the job's uploads, cannot be reached."""
        try:
            handles = await self._find_stages(job.family)
            fingerprint = (await self._assigner.weights(job.family, handles)).to_text()
            if not await asyncio.to_thread(self._storage.jobs.pin, Claim.of(job), fingerprint):
                return None
            return JobRun(await asyncio.to_thread(self._assigner.assign, job, fingerprint), self._storage, handles)
        except StoreRefusedError:
            raise
        except (UnavailableError, RayError, RayServeException) as error:
            raise NotReadyError(f"model {job.family} is not ready: {error}") from error

    async def _fail(self, claim: Claim, error: dict[str, Any]) -> None:
        run = self._runs.get(claim)
        await self._settle(self._storage.jobs.fail, claim, error, [] if run is None else run.stages)

    async def _settle(self, act: Callable[..., bool], claim: Claim, *arguments: Any) -> None:
        """Writes how a job ended, until the database has it or the claim is lost: its lease outlives no failure to write."""
        self._over.add(claim)
        while claim in self._tasks:
            try:
                if not await asyncio.to_thread(act, claim, *arguments):
                    self._lost.add(claim)
                    log.warning("%s: attempt %d is not this dispatcher's any more; what it made is discarded", claim.id, claim.attempt)
                return
            except Exception:
                log.exception("%s could not be written; trying again", claim.id)
                await asyncio.sleep(RETRY_SECONDS)

    async def _find_stages(self, family: str) -> dict[str, DeploymentHandle]:
        if family not in self._handles:
            stages = stages_of(self._families[family])
            self._handles[family] = await asyncio.to_thread(find_stages, family, stages=stages)
        return self._handles[family]


class NotReadyError(Exception):
    """What a job needs is not there yet; that is not the job's fault, nor that of who works on it."""


def _end(task: asyncio.Task[None]) -> None:
    """Cancelled once: a second time would break off the wait until its stage has stopped."""
    if not task.cancelling():
        task.cancel()


def _error(error: AiprodError, *, code: str | None = None) -> dict[str, Any]:
    return {"code": code or error.code, "message": error.message}
