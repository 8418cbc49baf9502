"""values of a request -> what they must be: pictures, footage, LoRAs and the parts of guidance"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from aiprod_components.calls import Guidance
from aiprod_components.values import Footage, Picture, Sound


def _as(kind: type, what: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise ValueError(f"must be {what}")

    return check


def _saying_something(text: str) -> str:
    if all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):  # spaces and control characters
        raise ValueError("says nothing; describe what the video shows")
    return text


@dataclass(frozen=True)
class OneOf:
    """Marks a text field that is one of these names: the keys of a table, for the most part. `hint` is said where it is none."""

    names: tuple[str, ...]
    hint: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": list(self.names)}

    def _check(self, value: str) -> str:
        if value not in self.names:
            raise ValueError(f"must be one of {', '.join(self.names)}{self.hint}")
        return value


PICTURE_SCHEMA = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
FOOTAGE_SCHEMA = {"type": "string", "contentEncoding": "base64", "contentMediaType": "video/mp4"}
SOUND_SCHEMA = {"type": "string", "contentEncoding": "base64", "contentMediaType": "audio/wav"}
PictureField = Annotated[Picture, BeforeValidator(_as(Picture, "a picture: PNG, JPEG or WebP bytes")), WithJsonSchema(PICTURE_SCHEMA)]
FootageField = Annotated[Footage, BeforeValidator(_as(Footage, "a video: mp4, mov or webm bytes")), WithJsonSchema(FOOTAGE_SCHEMA)]
SoundField = Annotated[Sound, BeforeValidator(_as(Sound, "a sound: wav, mp3, aac, flac, mp4 or webm bytes")), WithJsonSchema(SOUND_SCHEMA)]
Prompt = Annotated[str, Field(min_length=1), AfterValidator(_saying_something)]
FrameRate = Annotated[float, Field(ge=1, le=120, allow_inf_nan=False)]
Strength = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


# How much larger a video is than its draft -> the factor as a fraction, and the upsampler that does it.
UPSCALES: dict[float, tuple[int, int, str]] = {
    2.0: (2, 1, "upsampler"),
    1.5: (3, 2, "upsampler_3_2"),
    0.75: (3, 4, "upsampler_3_4"),
    4.0: (4, 1, "upsampler_4_1"),
}


def _known_upscale(value: float) -> float:
    if value not in UPSCALES:
        raise ValueError(f"must be one of {', '.join(f'{scale:g}' for scale in UPSCALES)}")
    return value


Upscale = Annotated[float, AfterValidator(_known_upscale), WithJsonSchema({"type": "number", "enum": list(UPSCALES)})]
UPSCALE = Field(default=2.0, description="How many times larger the video is than its draft.")


class Part(BaseModel):
    """A group of fields of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class FirstFrame(Part):
    """A picture that the video begins with; at strength 1 exactly, below it freely."""

    picture: PictureField
    strength: Strength = 1.0


class Keyframe(Part):
    """A picture that the video shows at frame `frame`, counted from 0; at strength 1 as closely as the model can, below it freely."""

    picture: PictureField
    frame: int = Field(ge=0)
    strength: Strength = 1.0


class Reference(Part):
    """A video to follow, and how closely."""

    footage: FootageField
    strength: Strength = 1.0


class GivenSound(Part):
    """A sound that pictures are made to."""

    sound: SoundField


class LoraChoice(Part):
    """One of the family's LoRAs; a negative scale takes away what it adds."""

    name: str = Field(min_length=1, max_length=100)
    scale: float = Field(default=1.0, ge=-2, le=2, allow_inf_nan=False)


class SkipGuidance(Part):
    """Spatiotemporal skip guidance: away from what is predicted without self-attention in some attention blocks, counted from 0."""

    scale: float = Field(gt=0, le=10, allow_inf_nan=False)
    blocks: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)


class AudioGuidance(Part):
    """Guidance of the sound, where the family makes it: what the fields of the same names are for the pictures.

    `skip_scale` is for the blocks that `skip_guidance` names.
    """

    scale: float = Field(default=1.0, ge=1, le=30, allow_inf_nan=False)
    skip_scale: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    modality_scale: float = Field(default=1.0, ge=1, le=30, allow_inf_nan=False)
    rescale: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)

    @classmethod
    def of(cls, guidance: Guidance) -> "AudioGuidance":
        return cls(scale=guidance.scale, skip_scale=guidance.stg_scale, modality_scale=guidance.modality_scale, rescale=guidance.rescale)


class ProjectedGuidance(Part):
    """Adaptive projected guidance: less of what guidance says along the prediction, bounded, against the steps before."""

    parallel: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False, description="How much of the parallel part is kept.")
    threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Largest root mean square of the guidance; 0 is no bound.")
    momentum: float = Field(default=-0.5, gt=-1, lt=1, allow_inf_nan=False)
