"""data URLs and files as the client named them -> pictures, footage and sounds that are known to be such, as a request's fields

A medium comes as a file in a multipart body or as a data: URL in the body itself. What comes as an address, where the operator allows
it, has been fetched before and is a data: URL here (`sources.py`).
"""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from aiprod_components.errors import InvalidRequestError
from aiprod_components.media.uploads import Media, check_media
from aiprod_components.pipelines import shown
from aiprod_components.pipelines.fields import FirstFrame, GivenSound, Keyframe, Reference, Strength
from aiprod_components.pipelines.keyframe_interpolation import MOST_KEYFRAMES


def _check_data_url(value: str) -> str:
    if not re.match(r"data:[^,]*;base64,", value):
        raise ValueError("must be a data: URL (data:image/png;base64,…), or http(s):// where the server may fetch; or upload the file")
    return value


def _object_of(field: str, kind: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str | bytes | int | float | list):
            raise ValueError(f'must be {{"{field}": "data:{kind};base64,…"}}, or a file in a multipart body')
        return value

    return BeforeValidator(check)


DataUrl = Annotated[str, AfterValidator(_check_data_url)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureReference(_Sent):
    """A picture in the body itself."""

    image_url: DataUrl = Field(description="data:image/png;base64,… (or JPEG, WebP)")


class FootageReference(_Sent):
    """A video in the body itself."""

    video_url: DataUrl = Field(description="data:video/mp4;base64,… (or mov, webm)")


class SoundReference(_Sent):
    """A sound in the body itself."""

    audio_url: DataUrl = Field(description="data:audio/wav;base64,… (or mp3, aac, flac, m4a, mp4, webm)")


class SentKeyframe(_Sent):
    """A picture and the frame that shows it: in the body itself, or a file of the multipart body, named here."""

    image_url: DataUrl | None = Field(default=None, description="data:image/png;base64,… (or JPEG, WebP)")
    file: str | None = Field(default=None, description="The name of a file in the same multipart body.")
    frame: int = Field(ge=0, description="The frame's number, counted from 0.")
    strength: Strength = Field(default=1.0, description="How firmly the frame shows the picture; 1 is as closely as the model can.")


# Flat, so that they stand by themselves in the OpenAPI document too.
UPLOAD = {"type": "string", "format": "binary", "description": "The file itself, in a multipart body."}
SentPicture = Annotated[
    PictureReference | None,
    _object_of("image_url", "image/png"),
    WithJsonSchema({"anyOf": [PictureReference.model_json_schema(), UPLOAD]}),
]
SentFootage = Annotated[
    FootageReference | None,
    _object_of("video_url", "video/mp4"),
    WithJsonSchema({"anyOf": [FootageReference.model_json_schema(), UPLOAD]}),
]
SentSound = Annotated[
    SoundReference | None,
    _object_of("audio_url", "audio/wav"),
    WithJsonSchema({"anyOf": [SoundReference.model_json_schema(), UPLOAD]}),
]

# A request's field -> the client's fields for it.
MEDIA: dict[str, dict[str, Any]] = {
    "image": {
        "input_reference": Annotated[SentPicture, Field(None, description="A picture that the video begins with.")],
        "image_strength": Annotated[Strength, Field(1.0, description="How firmly the video begins with the picture; 1 is exactly.")],
    },
    "keyframes": {
        "keyframes": Annotated[
            tuple[SentKeyframe, ...] | None,
            Field(None, min_length=1, max_length=MOST_KEYFRAMES, description="Pictures, each with the number of the frame that shows it."),
        ],
    },
    "reference_video": {
        "reference_video": Annotated[SentFootage, Field(None, description="A video to follow.")],
        "reference_strength": Annotated[Strength, Field(1.0, description="How closely to follow the video.")],
    },
    "sound": {"sound": Annotated[SentSound, Field(None, description="A sound that the pictures go with.")]},
}


MEDIA_NAMES = frozenset(name for fields in MEDIA.values() for name in fields)


class Uploads:
    """The media of one body. `given` are its fields, understood; `files` its files by name."""

    def __init__(self, given: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._given, self._files = given, files
        self._unused = dict(files)

    def read(self) -> dict[str, Any]:
        """The request's fields. Raises InvalidRequestError for what is no picture or video, and for a file that nothing names.

        What was sent is decoded in the sandbox, all of it at once, when everything that can be known without has been checked.
        """
        first = self._one("input_reference", "image_url", strength="image_strength", what="a picture")
        keyframes = self._keyframes()
        reference = self._one("reference_video", "video_url", strength="reference_strength", what="a video")
        sound = self._one("sound", "audio_url")
        if self._unused:
            name = next(iter(self._unused))
            raise InvalidRequestError(
                f"{name} must be text, got a file; the files are input_reference, reference_video, sound and those that keyframes name",
                field=name,
            )
        media = check_media(pictures=first | {at: data for at, (data, _) in keyframes.items()}, footage=reference, sounds=sound)
        return self._first_frame(media) | self._at_frames(media, keyframes) | self._followed(media) | self._heard(media)

    def _first_frame(self, media: Media) -> dict[str, Any]:
        if (picture := media.pictures.get("input_reference")) is None:
            return {}
        return {"image": FirstFrame(picture=picture, strength=self._given.get("image_strength", 1.0))}

    def _at_frames(self, media: Media, sent: Mapping[str, tuple[bytes, SentKeyframe]]) -> dict[str, Any]:
        if not sent:
            return {}
        frames = [Keyframe(picture=media.pictures[at], frame=k.frame, strength=k.strength) for at, (_, k) in sent.items()]
        return {"keyframes": tuple(frames)}

    def _followed(self, media: Media) -> dict[str, Any]:
        if (footage := media.footage.get("reference_video")) is None:
            return {}
        return {"reference_video": Reference(footage=footage, strength=self._given.get("reference_strength", 1.0))}

    def _heard(self, media: Media) -> dict[str, Any]:
        return {"sound": GivenSound(sound=sound)} if (sound := media.sounds.get("sound")) is not None else {}

    def _one(self, name: str, url: str, *, strength: str = "", what: str = "") -> dict[str, bytes]:
        """What was sent under a name, as a file or as a data URL, if anything was."""
        sent = self._given.get(name)
        data = self._unused.pop(name, None) if sent is None else _decoded(getattr(sent, url), field=f"{name}.{url}")
        if data is None and strength in self._given:
            raise InvalidRequestError(f"{strength} needs {what}; send {name} too", field=strength)
        return {} if data is None else {name: data}

    def _keyframes(self) -> dict[str, tuple[bytes, SentKeyframe]]:
        sent: tuple[SentKeyframe, ...] = self._given.get("keyframes") or ()
        return {at: (self._keyframe_bytes(k, at=at), k) for at, k in ((f"keyframes.{index}", k) for index, k in enumerate(sent))}

    def _keyframe_bytes(self, sent: SentKeyframe, *, at: str) -> bytes:
        if sent.image_url is not None and sent.file is None:
            return _decoded(sent.image_url, field=f"{at}.image_url")
        if sent.file is not None and sent.image_url is None:
            return self._named(sent.file, field=f"{at}.file")
        raise InvalidRequestError(f"{at} must have either image_url or file", field=at)

    def _named(self, name: str, *, field: str) -> bytes:
        """A file that a field names; several may name the same."""
        if name in MEDIA_NAMES:
            raise InvalidRequestError(f"{field} names {name}, which is a field of its own; give the file another name", field=field)
        if name not in self._files:
            raise InvalidRequestError(f"{field} names {shown(name)}, which is no file of this body", field=field)
        self._unused.pop(name, None)
        return self._files[name]


def _decoded(url: str, *, field: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except ValueError as error:
        raise InvalidRequestError(f"{field} is not base64 ({error}); encode the file's bytes again", field=field) from error
