"""what may be asked for besides the prompt -> the body of an HTTP request"""

import base64
from dataclasses import dataclass, fields
from typing import Any

# How a picture's bytes begin. The server looks for itself; this only labels the data URL.
_MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """The settings of a video, as the API names them; what is None is the model family's default.

    `model` is a family or `family/pipeline`, `size` is `WIDTHxHEIGHT`, `image` the picture that the video begins with.
    """

    model: str | None = None
    pipeline: str | None = None
    size: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    image: bytes | None = None
    image_strength: float | None = None

    def body(self, prompt: str) -> dict[str, Any]:
        """The JSON body that asks for this video."""
        body: dict[str, Any] = {"prompt": prompt}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bytes):
                body["input_reference"] = {"image_url": _data_url(value)}
            elif value is not None:
                body[field.name] = value
        return body


def _data_url(picture: bytes) -> str:
    media_type = next((kind for start, kind in _MEDIA_TYPES.items() if picture.startswith(start)), "application/octet-stream")
    return f"data:{media_type};base64,{base64.b64encode(picture).decode()}"
