"""a job -> what clients are shown of it: OpenAI's Video object, with what made it and how long each step took"""

from collections.abc import Mapping, Sequence
from typing import Any

from aiprod_components.pipelines.base import VideoRequest
from deployments.jobs.records import COMPLETED, IN_PROGRESS, QUEUED, Job


def shown_of(request: VideoRequest) -> dict[str, Any]:
    """What of a request is shown with its job."""
    video = request.video
    seconds = video.num_frames / video.frame_rate
    return {
        "prompt": request.next_prompts[-1] if request.extends else request.prompt,
        "seconds": f"{seconds:.4f}".rstrip("0").rstrip("."),
        "size": f"{video.width}x{video.height}" if request.has_pictures else None,
        "num_frames": video.num_frames,
        "fps": video.frame_rate,
        "seed": request.seed,
    }


def video_object(job: Job, *, position: int | None) -> dict[str, Any]:
    """`position` is its place in the queue."""
    status, progress, output = job.shown_status, job.progress, job.output or {}
    current = {name: progress[name] for name in ("step", "stage", "done", "total")} if progress and status == IN_PROGRESS else None
    return {
        "id": job.id,
        "object": "video",
        "model": job.family,
        "pipeline": job.pipeline,
        "status": status,
        "progress": 100 if status == COMPLETED else progress.get("percent", 0),
        "created_at": int(job.created_at),
        "completed_at": _whole(job.completed_at) if status == COMPLETED else None,
        "expires_at": _whole(job.expires_at),
        **job.shown,
        "error": job.error,
        "remixed_from_video_id": job.remixed_from,
        "priority": job.priority,
        "queue_position": position if status == QUEUED else None,
        "current": current,
        "stages": job.stages,
        "cost": round(job.cost, 3),
        "media_type": output["files"]["video"][0] if output else None,
        "frames_sha256": output.get("frames_digest"),
    }


def page_object(videos: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": list(videos),
        "first_id": videos[0]["id"] if videos else None,
        "last_id": videos[-1]["id"] if videos else None,
        "has_more": has_more,
    }


def made_headers(video: Mapping[str, Any], *, seconds: float) -> dict[str, str]:
    """Of a finished video as the answer itself: what made it, and how long each step took."""
    return {
        "server-timing": _server_timing(video["stages"], seconds=seconds),
        "x-aiprod-video-id": video["id"],
        "x-aiprod-seed": str(video["seed"]),
        "x-aiprod-pipeline": video["pipeline"],
        "x-aiprod-frames-sha256": video["frames_sha256"],
    }


def _server_timing(stages: Sequence[Mapping[str, Any]], *, seconds: float) -> str:
    """One entry per step in milliseconds, then how long steps waited for a free replica in all, then the whole request."""
    steps = [f'{line["step"]};dur={line["run_seconds"] * 1000:.1f};desc="{line["stage"]}"' for line in stages]
    queue = sum(line["queued_seconds"] for line in stages)
    return ", ".join([*steps, f"queue;dur={queue * 1000:.1f}", f"total;dur={seconds * 1000:.1f}"])


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
