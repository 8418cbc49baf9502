"""what may be asked for besides the prompt -> the body of an HTTP request"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# How a file's bytes begin. The server looks for itself; this only labels the data URL.
_MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"\x1aE\xdf\xa3": "video/webm"}


@dataclass(frozen=True)
class Keyframe:
    """A picture that the video shows at frame number `frame`; at strength 1 as closely as the model can."""

    picture: bytes
    frame: int
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """The settings of a video, as the API names them; what is None is the model family's default.

    `model` is a family or `family/pipeline`, `size` is `WIDTHxHEIGHT`, `image` the picture that the video begins with, `reference_video`
    the video that it follows, `sound` what is heard in it, `loras` are scales by name. `more` holds any other field of the API by its name.
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
    keyframes: tuple[Keyframe, ...] = ()
    reference_video: bytes | None = None
    reference_strength: float | None = None
    sound: bytes | None = None
    loras: Mapping[str, float] = field(default_factory=dict[str, float])
    output_format: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def body(self, prompt: str) -> dict[str, Any]:
        """The JSON body that asks for this video."""
        plain = {name: value for name in _plain_fields() if (value := getattr(self, name)) is not None}
        body: dict[str, Any] = {"prompt": prompt, **plain}
        if self.image is not None:
            body["input_reference"] = {"image_url": _data_url(self.image, otherwise="application/octet-stream")}
        if self.reference_video is not None:
            body["reference_video"] = {"video_url": _data_url(self.reference_video, otherwise="video/mp4")}
        if self.sound is not None:
            body["sound"] = {"audio_url": _data_url(self.sound, otherwise="application/octet-stream")}
        if self.keyframes:
            body["keyframes"] = [_keyframe(keyframe) for keyframe in self.keyframes]
        if self.loras:
            body["loras"] = [{"name": name, "scale": scale} for name, scale in self.loras.items()]
        if twice := sorted(body.keys() & self.more.keys()):
            raise ValueError(f"more gives {twice[0]}, which is given already; leave one out")
        return body | dict(self.more)


def _plain_fields() -> list[str]:
    """Those that stand in the body as they are."""
    return [f.name for f in fields(VideoSettings) if f.name not in ("image", "keyframes", "reference_video", "sound", "loras", "more")]


def _keyframe(keyframe: Keyframe) -> dict[str, Any]:
    strength = {} if keyframe.strength is None else {"strength": keyframe.strength}
    return {"frame": keyframe.frame, "image_url": _data_url(keyframe.picture, otherwise="application/octet-stream"), **strength}


def _data_url(data: bytes, *, otherwise: str) -> str:
    media_type = next((kind for start, kind in _MEDIA_TYPES.items() if data.startswith(start)), otherwise)
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
