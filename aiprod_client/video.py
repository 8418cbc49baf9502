"""what a server says of a video, as values: the job, its steps and events, pages of jobs, finished files"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = "queued", "in_progress", "completed", "failed", "cancelled"
FINAL = (COMPLETED, FAILED, CANCELLED)


@dataclass(frozen=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str


@dataclass(frozen=True)
class JobProgress:
    """Where a job is: `done` of `total` in a step of its plan."""

    step: str
    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class StageReceipt:
    """A finished step of the plan: where it ran, how long it waited and ran, in seconds; `cache_hit`: its result was kept from before."""

    step: str
    stage: str
    replica: str | None = None
    queued_seconds: float = 0.0
    run_seconds: float = 0.0
    cache_hit: bool = False
    attempt: int = 1


@dataclass(frozen=True)
class VideoJob:
    """A video as the server makes it; times are seconds since 1970, `seconds` is its length, `progress` goes to 100.

    `record` is all that the server said, fields that are newer than this client included.
    """

    id: str
    status: str
    object: str = "video"
    created_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    model: str | None = None
    pipeline: str | None = None
    prompt: str | None = None
    progress: int = 0
    seconds: float | None = None
    size: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    seed: int | None = None
    error: JobError | None = None
    remixed_from_video_id: str | None = None
    priority: int = 0
    queue_position: int | None = None
    current: JobProgress | None = None
    stages: tuple[StageReceipt, ...] = ()
    cost: float | None = None
    media_type: str | None = None
    frames_sha256: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, hash=False)

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class VideoEvent:
    """The job has changed."""

    job: VideoJob


@dataclass(frozen=True)
class PreviewEvent:
    """A small picture of what is being made."""

    image: bytes
    media_type: str = "image/webp"


Event = VideoEvent | PreviewEvent


@dataclass(frozen=True)
class VideoPage:
    """Some of the jobs; with `has_more`, the next page is the one after `last_id`."""

    data: tuple[VideoJob, ...]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


@dataclass(frozen=True)
class Content:
    """A file of a video as it was downloaded; `data` is empty where the bytes went to a file."""

    media_type: str
    size: int
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class StageTime:
    """How long a step of the plan was at its stage, in seconds."""

    step: str
    stage: str
    seconds: float


@dataclass(frozen=True)
class GeneratedVideo:
    """A finished video (mp4), still (PNG, WebP) or sound alone (m4a, wav) and how it came to be.

    Equal frames, or samples of a sound alone, have an equal `frames_sha256`.

    `seconds` is the whole time from asking to having; the steps' `timings` leave out waiting and the way between stages. `id` is the
    server's name for it, None if this process made it.
    """

    data: bytes
    seed: int
    pipeline: str
    frames_sha256: str
    seconds: float
    timings: tuple[StageTime, ...]
    media_type: str = "video/mp4"
    id: str | None = None
