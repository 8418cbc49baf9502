"""what the user asks -> a server, or this process -> a finished video"""

from aiprod_client.client import AiprodClientError, Client, GeneratedVideo, StageTime
from aiprod_client.settings import Keyframe, VideoSettings

__all__ = ["AiprodClientError", "Client", "GeneratedVideo", "Keyframe", "StageTime", "VideoSettings"]
