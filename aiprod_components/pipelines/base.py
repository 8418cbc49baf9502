"""what every request has in common, and how it becomes a plan"""

import random
import unicodedata
from abc import abstractmethod
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from aiprod_components.calls import EncodePicture, EncodePrompt, Guidance, Pin, Sampling
from aiprod_components.diffusion.schedulers import shifted_flow
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.plan import Plan, PlanBuilder, Ref
from aiprod_components.values import Picture, PromptEmbeds, VideoShape

MAX_SEED = 2**63 - 1


def _as_picture(value: Any) -> Picture:
    if isinstance(value, Picture):
        return value
    raise ValueError("must be a picture: PNG, JPEG or WebP bytes")


PictureField = Annotated[
    Picture, BeforeValidator(_as_picture), WithJsonSchema({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"})
]


def _saying_something(text: str) -> str:
    if all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):  # spaces and control characters
        raise ValueError("says nothing; describe what the video shows")
    return text


class FirstFrame(BaseModel):
    """A picture that the video begins with; at strength 1 exactly, below it freely."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    picture: PictureField
    strength: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)


class VideoRequest(BaseModel, frozen=True):
    """What the user asks for. A pipeline adds its name, its own fields and `steps`; `parse_request` fills in a family's defaults."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str
    prompt: Annotated[str, AfterValidator(_saying_something)] = Field(min_length=1, description="What the video shows, in any language.")
    negative_prompt: str = Field(default="", description="What to steer away from, where there is guidance.")
    num_frames: int = Field(description="Frames of the video: 1 + a multiple of the family's time compression.")
    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    frame_rate: float = Field(ge=1, le=120, allow_inf_nan=False, description="Frames per second.")
    num_inference_steps: int = Field(ge=1, description="Denoising steps of stage 1.")
    guidance_scale: float = Field(ge=1, le=30, allow_inf_nan=False, description="How closely to follow the prompt; 1 is no guidance.")
    seed: int = Field(default_factory=lambda: random.getrandbits(32), ge=0, le=MAX_SEED, description="The same seed gives the same frames.")
    image: FirstFrame | None = Field(default=None, description="A picture that the video begins with.")

    @property
    def video(self) -> VideoShape:
        return VideoShape(self.num_frames, self.height, self.width, self.frame_rate)

    @property
    @abstractmethod
    def space_multiple(self) -> int:
        """Height and width must be multiples of this many latents."""

    @abstractmethod
    def record(self, steps: PlanBuilder, family: Family) -> None:
        """Adds the pipeline's calls; the last one yields the video."""

    def plan(self, family: Family) -> Plan:
        """The request as calls. Pure; raises InvalidRequestError when the family cannot make it."""
        family.limits.check(self.video)
        family.grid.check(self.video, space_multiple=self.space_multiple * family.grid.space)
        if self.num_inference_steps > family.limits.max_steps:
            raise InvalidRequestError(
                f"num_inference_steps must be 1 to {family.limits.max_steps}, got {self.num_inference_steps}", field="num_inference_steps"
            )
        for field, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt)):
            if (size := len(text.encode())) > family.limits.max_prompt_bytes:
                raise InvalidRequestError(
                    f"{field} must be at most {family.limits.max_prompt_bytes} bytes of UTF-8, got {size}; shorten it", field=field
                )
        steps = PlanBuilder(family=family.name, pipeline=self.pipeline, grid=family.grid)
        self.record(steps, family)
        return steps.build()

    def encode_prompt(self, steps: PlanBuilder) -> Ref[PromptEmbeds]:
        negative_prompt = None if self.guidance_scale == 1.0 else self.negative_prompt
        return steps.add("prompt", EncodePrompt(self.prompt, negative_prompt))

    def guided_sampling(self, family: Family, *, video: VideoShape) -> Sampling:
        """Stage 1: from pure noise, with the request's steps and guidance."""
        shift = family.sampling.shift.at(family.grid.tokens_of(video))
        return Sampling(shifted_flow(self.num_inference_steps, shift=shift), Guidance(self.guidance_scale), self.seed)

    def first_frame_pins(self, steps: PlanBuilder, *, name: str, video: VideoShape) -> tuple[Pin, ...]:
        """The request's picture, encoded at the size of `video` and pinned to its first frame."""
        if self.image is None:
            return ()
        latents = steps.add(name, EncodePicture(self.image.picture, video.height, video.width))
        return (Pin(latents, 0, self.image.strength),)
