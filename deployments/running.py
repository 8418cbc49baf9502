"""a claimed job -> its plan walked over the stages, from what is kept already -> its finish; and on the way, how far it is"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from aiprod_components.errors import MissingArtifactError, StoreRefusedError, UnavailableError, WeightsChangedError
from aiprod_components.plan import Plan, Step
from deployments.artifacts import file_key, step_key, video_prefix
from deployments.envelope import Receipt, Sealed
from deployments.jobs.kept import Kept
from deployments.jobs.records import Claim, Job
from deployments.keeping import KeptStep
from deployments.orders import ForJob, Order, Publish, Report, merge_stages, receipt_record
from deployments.runner import run_plan, steps_to_run
from deployments.settings import ProvenanceArgs
from deployments.storage import Storage
from deployments.telemetry.jobs import attempt_of
from deployments.weights import Weights

log = logging.getLogger("ray.serve")

# Seconds before a plan is walked again after a stage was lost or full; a lost replica is back in about two, and its weights.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True)
class Assignment:
    """A claimed job, understood: its plan, the identity of each step, whose results may answer it, what to sign into its video."""

    job: Job
    plan: Plan
    identities: Mapping[str, str]
    scopes: Mapping[str, str]
    weights: Weights
    artifacts: str
    provenance: ProvenanceArgs | None = None

    @property
    def claim(self) -> Claim:
        return Claim.of(self.job)

    @property
    def prefix(self) -> str:
        return video_prefix(self.job.id, self.job.attempt)

    @cached_property
    def traceparent(self) -> str | None:
        """The attempt's own place in the job's trace."""
        context = attempt_of(self.job)
        return None if context is None else str(context)

    def order(self, step: Step) -> Order:
        name, job = step.name, self.job
        to = Publish(self.prefix, job.id, job.family, job.pipeline, self.provenance) if name == self.plan.output else None
        known: dict[str, Any] = {"publish": to, "family": job.family, "traceparent": self.traceparent}
        planned_for = self.weights.of(step.call.stage)
        whose = ForJob(self.claim, self.artifacts, planned_for, self.identities[name], self.scopes[name], **known)
        return Order(name, step.call, whose)


class JobRun:
    """One attempt at a job. Holds no tensors; what it notes, its dispatcher writes."""

    def __init__(self, assignment: Assignment, storage: Storage, handles: Mapping[str, DeploymentHandle]) -> None:
        self.assignment, self._storage, self._handles = assignment, storage, handles
        self.stages: list[dict[str, Any]] = list(assignment.job.stages)
        self.progress: dict[str, Any] = dict(assignment.job.progress)
        self.is_dirty = False
        self._previews: dict[str, int] = {}
        works = {step.name: step.call.work(assignment.plan.grid) for step in assignment.plan.steps}
        self._weights = {name: work.network_calls * work.tokens for name, work in works.items()}
        self._begun, self._ended, self._kept = set[str](), set[str](), set[str]()

    def note(self, report: Report) -> None:
        """Takes down what a stage says. Percent never falls, and is not 100 before the job is finished."""
        if report.receipt is not None:
            self._ended.add(report.step)
            self.stages = merge_stages(self.stages, [receipt_record(report.receipt, attempt=self.assignment.job.attempt)])
        elif report.step in self._ended:
            return  # messages may overtake each other
        self._begun.add(report.step)
        self._previews[report.step] = max(report.previews, self._previews.get(report.step, 0))
        self.progress = {
            "percent": max(self._percent(report), self.progress.get("percent", 0)),
            "step": report.step,
            "stage": report.stage,
            "done": report.done,
            "total": report.total,
            "preview": sum(self._previews.values()),
        }
        self.is_dirty = True

    def at_work(self) -> tuple[list[str], list[str]]:
        """The stages that compute for the job now, and those in whose queue it waits."""
        there = self._ended | self._kept
        running = [step.call.stage for step in self.assignment.plan.steps if step.name in self._begun - self._ended]
        waiting = [step for step in steps_to_run(self.assignment.plan, kept=self._kept) if step.name not in self._begun]
        return running, [step.call.stage for step in waiting if there.issuperset(step.inputs)]

    def _percent(self, report: Report) -> int:
        behind = sum(self._weights[name] for name in self._ended | self._kept)
        if report.total and report.step not in self._ended:
            behind += self._weights[report.step] * report.done / report.total
        return int(99 * behind / sum(self._weights.values()))

    async def walk(self) -> dict[str, Any]:
        """The output of the finished job. Raises UnavailableError when stages or the store stay away, and what a stage raised."""
        if self.assignment.job.attempt > 1:
            # Before anything is computed: the store may have been what ended the last attempt.
            await asyncio.to_thread(self._storage.artifacts.check, self.assignment.prefix)
        for pause in PAUSES:
            try:
                return await self._walk_once()
            except (WeightsChangedError, StoreRefusedError):
                raise
            except (UnavailableError, MissingArtifactError, BackPressureError) as error:
                log.warning("%s: %s; going on in %.1f s", self.assignment.job.id, error, pause)
                await asyncio.sleep(pause)
        return await self._walk_once()

    async def _walk_once(self) -> dict[str, Any]:
        kept = await asyncio.to_thread(self._find_kept)
        self._kept, self._begun, self._ended = set(kept), set(), set()
        if (made := kept.pop(self.assignment.plan.output, None)) is not None and self.assignment.provenance is None:
            try:
                return await asyncio.to_thread(self._take_over, made)
            except MissingArtifactError:
                await asyncio.to_thread(self._forget, {self.assignment.plan.output: made})
        steps = {name: KeptStep(found.location, self.assignment.identities[name]) for name, found in kept.items()}
        try:
            sealed = await run_plan(self.assignment.plan, handles=self._handles, order=self.assignment.order, kept=steps)
        except MissingArtifactError:
            await asyncio.to_thread(self._forget, kept)
            raise
        return self._finished(sealed, kept)

    def _find_kept(self) -> dict[str, Kept]:
        """Steps whose results are there: by the index, and for a job that was tried before by the artifacts themselves."""
        found: dict[str, Kept] = {}
        identities, scopes = self.assignment.identities, self.assignment.scopes
        for scope in set(scopes.values()):
            names = {identities[name]: name for name in identities if scopes[name] == scope}
            found |= {names[identity]: kept for identity, kept in self._storage.kept.find(scope, list(names)).items()}
        if self.assignment.job.attempt > 1:
            for name in identities.keys() - found.keys():
                location = step_key(scopes[name], identities[name])
                if stat := self._storage.artifacts.stat(location):
                    found[name] = Kept(location=location, bytes=stat.size, meta={})
        return found

    def _forget(self, kept: Mapping[str, Kept]) -> None:
        """Results of which one is gone or damaged: all of them are made again."""
        for name, found in kept.items():
            self._storage.kept.forget(self.assignment.scopes[name], [self.assignment.identities[name]])
            if name != self.assignment.plan.output:  # that is another video's
                self._storage.artifacts.delete(found.location)

    def _take_over(self, kept: Kept) -> dict[str, Any]:
        """The same video was made before: its files, copied, the video last."""
        names = sorted(kept.meta["files"], key="video".__eq__) if kept.location != self.assignment.prefix else []
        for name in names:
            self._storage.artifacts.copy(file_key(kept.location, name), file_key(self.assignment.prefix, name))
        self._note_hits([self.assignment.plan.output])
        return {**kept.meta, "prefix": self.assignment.prefix}

    def _finished(self, sealed: Sealed, kept: Mapping[str, Kept]) -> dict[str, Any]:
        attempt = self.assignment.job.attempt
        self.stages = merge_stages(self.stages, [receipt_record(receipt, attempt=attempt) for receipt in sealed.receipts])
        self._note_hits(kept)
        return asdict(sealed.open())

    def _note_hits(self, names: Any) -> None:
        """Steps that nothing of this job ran."""
        stages = {step.name: step.call.stage for step in self.assignment.plan.steps}
        hits = [Receipt(name, stages[name], "", 0.0, 0.0) for name in names]
        self.stages = merge_stages(self.stages, [receipt_record(hit, attempt=self.assignment.job.attempt, cache_hit=True) for hit in hits])
