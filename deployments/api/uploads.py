"""data URLs and files as the client named them -> pictures and footage that are known to be such, as a request's fields

A medium comes as a file in a multipart body or as a data: URL in the body itself. No address is ever fetched.
"""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from aiprod_components.errors import InvalidRequestError
from aiprod_components.media.footage import check_footage
from aiprod_components.media.pictures import PictureChecker
from aiprod_components.pipelines import shown
from aiprod_components.pipelines.fields import FirstFrame, Keyframe, Reference, Strength
from aiprod_components.pipelines.keyframe_interpolation import MOST_KEYFRAMES


def _check_data_url(value: str) -> str:
    if not re.match(r"data:[^,]*;base64,", value):
        raise ValueError("must be a data: URL (data:image/png;base64,…), for no address is fetched; or upload the file as multipart")
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
}


MEDIA_NAMES = frozenset(name for fields in MEDIA.values() for name in fields)


class Uploads:
    """The media of one body. `given` are its fields, understood; `files` its files by name."""

    def __init__(self, given: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._given, self._files = given, files
        self._unused = dict(files)
        self._pictures = PictureChecker()

    def read(self) -> dict[str, Any]:
        """The request's fields. Raises InvalidRequestError for what is no picture or video, and for a file that nothing names."""
        record = self._image() | self._keyframes() | self._reference()
        if self._unused:
            name = next(iter(self._unused))
            raise InvalidRequestError(
                f"{name} must be text, got a file; the files are input_reference, reference_video and those that keyframes name", field=name
            )
        return record

    def _image(self) -> dict[str, Any]:
        if (data := self._bytes("input_reference", "image_url")) is None:
            return self._alone("image_strength", needs="input_reference", what="a picture")
        picture = self._pictures.check(data, field="input_reference")
        return {"image": FirstFrame(picture=picture, strength=self._given.get("image_strength", 1.0))}

    def _reference(self) -> dict[str, Any]:
        if (data := self._bytes("reference_video", "video_url")) is None:
            return self._alone("reference_strength", needs="reference_video", what="a video")
        footage = check_footage(data, field="reference_video")
        return {"reference_video": Reference(footage=footage, strength=self._given.get("reference_strength", 1.0))}

    def _keyframes(self) -> dict[str, Any]:
        sent: tuple[SentKeyframe, ...] = self._given.get("keyframes") or ()
        return {"keyframes": tuple(self._keyframe(k, at=f"keyframes.{index}") for index, k in enumerate(sent))} if sent else {}

    def _keyframe(self, sent: SentKeyframe, *, at: str) -> Keyframe:
        if sent.image_url is not None and sent.file is None:
            data = _decoded(sent.image_url, field=f"{at}.image_url")
        elif sent.file is not None and sent.image_url is None:
            data = self._named(sent.file, field=f"{at}.file")
        else:
            raise InvalidRequestError(f"{at} must have either image_url or file", field=at)
        return Keyframe(picture=self._pictures.check(data, field=at), frame=sent.frame, strength=sent.strength)

    def _named(self, name: str, *, field: str) -> bytes:
        """A file that a field names; several may name the same."""
        if name in MEDIA_NAMES:
            raise InvalidRequestError(f"{field} names {name}, which is a field of its own; give the file another name", field=field)
        if name not in self._files:
            raise InvalidRequestError(f"{field} names {shown(name)}, which is no file of this body", field=field)
        self._unused.pop(name, None)
        return self._files[name]

    def _bytes(self, name: str, url: str) -> bytes | None:
        """What was sent under a name, as a file or as a data URL."""
        sent = self._given.get(name)
        if sent is None:
            return self._unused.pop(name, None)
        return _decoded(getattr(sent, url), field=f"{name}.{url}")

    def _alone(self, field: str, *, needs: str, what: str) -> dict[str, Any]:
        if field in self._given:
            raise InvalidRequestError(f"{field} needs {what}; send {needs} too", field=field)
        return {}


def _decoded(url: str, *, field: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except ValueError as error:
        raise InvalidRequestError(f"{field} is not base64 ({error}); encode the file's bytes again", field=field) from error
