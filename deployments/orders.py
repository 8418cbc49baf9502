"""what a stage is asked to do for whom, and what it tells the dispatcher on its way"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiprod_components.plan import Call
from deployments.artifacts import step_key
from deployments.envelope import Receipt
from deployments.jobs.records import Claim
from deployments.settings import ProvenanceArgs


@dataclass(frozen=True)
class Publish:
    """Where a finished video goes, and what made it, which is signed into it where there is a certificate."""

    prefix: str
    title: str
    family: str
    pipeline: str
    provenance: ProvenanceArgs | None = None


@dataclass(frozen=True)
class ForJob:
    """The job that a step belongs to, the weights it was planned for, where its result is kept, and the place in the job's trace."""

    claim: Claim
    artifacts: str
    fingerprint: str
    identity: str
    scope: str
    publish: Publish | None = None
    family: str = ""
    traceparent: str | None = None

    @property
    def location(self) -> str:
        return step_key(self.scope, self.identity)


@dataclass(frozen=True)
class Order:
    """One call to a stage. Without a job nothing is kept and nobody is told."""

    step: str
    call: Call[Any]
    job: ForJob | None = None
    sent_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Published:
    """The files of a finished video under its prefix: NAME -> media type and bytes."""

    prefix: str
    files: dict[str, tuple[str, int]]
    frames_digest: str


@dataclass(frozen=True)
class Report:
    """Of a job's step: `done` of `total` are behind it (0 of 0: it has begun). `previews` counts the pictures shown so far.

    With a receipt the step has ended, and its result is in the artifact store: `kept_bytes` of it (0: it could not be kept), or the
    files that were `published`. `batches` are how often so many calls took a step together.
    """

    job: ForJob
    step: str
    stage: str
    done: int = 0
    total: int = 0
    previews: int = 0
    receipt: Receipt | None = None
    kept_bytes: int = 0
    published: Published | None = None
    batches: Mapping[int, int] = field(default_factory=dict)


def receipt_record(receipt: Receipt, *, attempt: int, cache_hit: bool = False) -> dict[str, Any]:
    """A line of a job's `stages`."""
    return {
        "step": receipt.step,
        "stage": receipt.stage,
        "replica": receipt.replica,
        "queued_seconds": round(receipt.queued_seconds, 4),
        "run_seconds": round(receipt.run_seconds, 4),
        "gpus": receipt.gpus,
        "cache_hit": cache_hit,
        "attempt": attempt,
    }


def merge_stages(known: Sequence[dict[str, Any]], more: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of both, each once: a step that was made again is told again, one that was only found again is not."""
    merged = list(known)
    for line in more:
        told = line["cache_hit"] and any(line["step"] == other["step"] for other in merged)
        if not told and line not in merged:
            merged.append(line)
    return merged
