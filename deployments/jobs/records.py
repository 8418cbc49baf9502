"""rows of the job table -> frozen values that the rest of the service passes around"""

import math
from dataclasses import dataclass
from typing import Any

QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = "queued", "in_progress", "completed", "failed", "cancelled"
LIVE = (QUEUED, IN_PROGRESS)
FINAL = (COMPLETED, FAILED, CANCELLED)
NO_LIMIT = 2**31 - 1  # what an integer column holds


@dataclass(frozen=True)
class NewJob:
    """A job as it is asked for; `record` and `shown` are opaque here."""

    id: str  # "video_" and 32 hex digits
    tenant: str
    family: str
    pipeline: str
    record: dict[str, Any]  # the request as it is stored
    shown: dict[str, Any]  # what of it clients are shown
    cost: float  # predicted, > 0
    priority: int  # -100 to 100, 0 is usual
    remixed_from: str | None = None
    webhook_url: str | None = None
    idempotency_key: str | None = None
    body_hash: str | None = None
    traceparent: str | None = None  # W3C's: the trace that the job belongs to, and the span that asked for it
    work: str | None = None  # what its plan takes, by step and stage; opaque here


@dataclass(frozen=True)
class Job:
    """A job as it stands; times are the database's, in seconds since 1970."""

    id: str
    tenant: str
    status: str
    family: str
    pipeline: str
    created_at: float
    started_at: float | None  # of the first claim
    completed_at: float | None  # when it ended, however it did
    expires_at: float | None
    record: dict[str, Any]
    shown: dict[str, Any]
    cost: float
    priority: int
    attempt: int  # 0 before the first claim; never used twice
    owner: str | None
    lease_until: float | None
    fingerprint: str | None  # of the weights, pinned when the job was claimed
    progress: dict[str, Any]
    stages: list[dict[str, Any]]  # receipts
    error: dict[str, Any] | None  # code and message
    output: dict[str, Any] | None  # where the finished files are; opaque here
    remixed_from: str | None
    webhook_url: str | None
    idempotency_key: str | None
    body_hash: str | None
    version: int  # grows with every change of the row but a heartbeat
    begun: bool = False  # whether a stage has started in this attempt
    traceparent: str | None = None

    @property
    def shown_status(self) -> str:
        """What clients are told: a job that is claimed still waits until a stage has started."""
        return QUEUED if self.status == IN_PROGRESS and not self.begun else self.status

    @property
    def ended_at(self) -> float:
        """Raises ValueError while it waits or is at work."""
        if self.completed_at is None:
            raise ValueError(f"{self.id} is {self.status} and has not ended")
        return self.completed_at


@dataclass(frozen=True)
class Claim:
    """The fence around a job: whoever holds one that the row does not match has lost the job."""

    id: str
    attempt: int
    owner: str

    @classmethod
    def of(cls, job: Job) -> "Claim":
        """The claim on a job that `JobStore.claim` returned. Raises ValueError when nobody has claimed it."""
        if job.owner is None:
            raise ValueError(f"{job.id} is {job.status} and nobody has claimed it")
        return cls(job.id, job.attempt, job.owner)


@dataclass(frozen=True)
class Changes:
    """What became of jobs since they were looked at: the ones that changed, and the ids of those that are gone."""

    jobs: list[Job]
    gone: set[str]


@dataclass(frozen=True)
class QueueLimits:
    """Of the whole queue, and of each tenant unless its own row says otherwise."""

    max_queued_of_all: int = 10_000
    max_queued: int = 1_000
    max_running: int = NO_LIMIT
    max_cost_per_day: float = math.inf
    weight: float = 1.0  # a tenant's share beside the others'
    seconds_per_priority: float = 36.0  # the head start that a point of priority is worth: 100 points are an hour
    kept_seconds: float = 7 * 86_400.0  # how long a job that failed or was cancelled can be asked about
