"""sealed video -> HTTP answer: the mp4, and in its headers what made it and how long each step took"""

from fastapi.responses import Response

from deployments.api.wire import Asked
from deployments.envelope import Sealed


def video_answer(asked: Asked, sealed: Sealed, *, seconds: float) -> Response:
    video = sealed.open()
    headers = {
        "server-timing": _server_timing(sealed, seconds=seconds),
        "x-aiprod-seed": str(asked.request.seed),
        "x-aiprod-pipeline": asked.request.pipeline,
        "x-aiprod-frames-sha256": video.frames_digest,
    }
    return Response(video.data, media_type=video.media_type, headers=headers)


def _server_timing(sealed: Sealed, *, seconds: float) -> str:
    """One entry per step in milliseconds, then how long steps waited for a free replica in all, then the whole request."""
    steps = [f'{r.step};dur={r.run_seconds * 1000:.1f};desc="{r.stage}"' for r in sealed.receipts]
    queue = sum(r.queued_seconds for r in sealed.receipts)
    return ", ".join([*steps, f"queue;dur={queue * 1000:.1f}", f"total;dur={seconds * 1000:.1f}"])
