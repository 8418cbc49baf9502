"""what the user asks -> a server, or this process -> a finished video"""

from aiprod_client.async_client import AsyncClient
from aiprod_client.client import Client
from aiprod_client.errors import (
    AiprodClientError,
    NoAnswerError,
    VideoCancelledError,
    VideoFailedError,
    VideoTimeoutError,
    WebhookVerificationError,
)
from aiprod_client.patience import Retries
from aiprod_client.settings import Keyframe, VideoSettings
from aiprod_client.video import (
    Content,
    Event,
    GeneratedVideo,
    JobError,
    JobProgress,
    PreviewEvent,
    StageReceipt,
    StageTime,
    VideoEvent,
    VideoJob,
    VideoPage,
)
from aiprod_client.webhooks import verify_webhook

__all__ = [
    "AiprodClientError",
    "AsyncClient",
    "Client",
    "Content",
    "Event",
    "GeneratedVideo",
    "JobError",
    "JobProgress",
    "Keyframe",
    "NoAnswerError",
    "PreviewEvent",
    "Retries",
    "StageReceipt",
    "StageTime",
    "VideoCancelledError",
    "VideoEvent",
    "VideoFailedError",
    "VideoJob",
    "VideoPage",
    "VideoSettings",
    "VideoTimeoutError",
    "WebhookVerificationError",
    "verify_webhook",
]
