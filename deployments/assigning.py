"""a job's row -> its request, loaded -> its plan, the identity of each step, and whose results may answer it; and what is left of it"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from ray.serve.handle import DeploymentHandle

from aiprod_components.errors import AiprodError, WeightsChangedError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.storage import load_request
from aiprod_components.plan import identify, private
from deployments.artifacts import step_key, upload_key
from deployments.jobs.records import COMPLETED, Job
from deployments.orders import Report
from deployments.running import Assignment
from deployments.settings import ApiArgs
from deployments.storage import Storage
from deployments.weights import Hearsay, Weights, fetch_weights

SHARED = "shared"  # the scope of results that every tenant may use
FRESH_SECONDS = 10.0  # for which a family's fingerprint is believed
TOLD_SECONDS = 1.0  # for which what replicas told is


class Assigner:
    """Turns jobs into assignments."""

    def __init__(self, args: ApiArgs, families: Mapping[str, Family], storage: Storage) -> None:
        self._args, self._families, self.storage = args, families, storage
        self._fingerprints: dict[str, tuple[float, str]] = {}
        self._heard = {family: (float("-inf"), Hearsay()) for family in families}

    async def weights(self, family: str, handles: Mapping[str, DeploymentHandle]) -> Weights:
        """That the family's replicas have now: the family's own from one of them, those of single stages as they told."""
        asked_at, known = self._fingerprints.get(family, (float("-inf"), ""))
        if time.monotonic() - asked_at > FRESH_SECONDS:
            known = await handles["text_encoder"].fingerprint.remote()
            self._fingerprints[family] = time.monotonic(), known
        heard_at, hearsay = self._heard[family]
        if time.monotonic() - heard_at > TOLD_SECONDS:
            hearsay.hear(await asyncio.to_thread(fetch_weights, family, handles))
            self._heard[family] = time.monotonic(), hearsay
        return hearsay.weights(known)

    def forget_fingerprint(self, family: str) -> None:
        self._fingerprints.pop(family, None)

    def note_refusal(self, family: str, refusal: WeightsChangedError) -> None:
        self.forget_fingerprint(family)
        self._heard[family][1].note(refusal)

    def assign(self, job: Job, fingerprint: str) -> Assignment:
        """For weights as a row has them pinned. Raises InvalidRequestError when the family cannot make it any more."""
        family, weights = self._families[job.family], Weights.from_text(fingerprint)
        plan = load_job_request(job, family=family, storage=self.storage).plan(family)
        own = private(plan)
        return Assignment(
            job=job,
            plan=plan,
            identities=identify(plan, fingerprint=weights.family, own=weights.own),
            scopes={step.name: self._scope(job.tenant, is_private=own[step.name]) for step in plan.steps},
            weights=weights,
            artifacts=self._args.artifacts_url,
            provenance=self._args.provenance,
        )

    def remove(self, job: Job) -> None:
        """All files of a job, and the results of its steps: whoever has the same made again makes them again."""
        if job.fingerprint is not None and job.family in self._families:
            with suppress(AiprodError):  # what cannot be planned any more has run out, or will
                self._forget_steps(self.assign(job, job.fingerprint))
        self.storage.kept.forget_location(f"videos/{job.id}/")
        self.storage.artifacts.delete_under(f"videos/{job.id}")

    def _forget_steps(self, assignment: Assignment) -> None:
        for name, identity in assignment.identities.items():
            scope = assignment.scopes[name]
            if scope != SHARED:
                self.storage.kept.forget(scope, [identity])
                self.storage.artifacts.delete(step_key(scope, identity))

    def note_kept(self, report: Report) -> None:
        """A result that is kept answers again. The bytes of a finished video count as its own; one that is signed is no other's."""
        job, published = report.job, report.published
        if report.kept_bytes:
            self.storage.kept.record(job.scope, job.identity, job.location, report.kept_bytes, {})
        if published is not None and self._args.provenance is None:
            self.storage.kept.record(job.scope, job.identity, published.prefix, 0, asdict(published))

    def note_late(self, report: Report) -> None:
        """What a stage says of an attempt that is over: of the one that finished the job, or files that nobody will ask for."""
        claim = report.job.claim
        job = self.storage.jobs.get(claim.id)
        if job is not None and (job.status, job.attempt) == (COMPLETED, claim.attempt):
            self.note_kept(report)
        elif report.published is not None:
            self.storage.artifacts.delete_under(report.published.prefix)

    def _scope(self, tenant: str, *, is_private: bool) -> str:
        return SHARED if self._args.cache.share_prompts and not is_private else f"tenant-{hashlib.sha256(tenant.encode()).hexdigest()[:32]}"


def load_job_request(job: Job, *, family: Family, storage: Storage) -> VideoRequest:
    return load_request(job.record, media=lambda digest: storage.artifacts.get(upload_key(job.id, digest)), family=family)
