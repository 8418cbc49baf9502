"""a prompt -> audio latents, with no pictures beside them -> a sound, as a file of its own"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from aiprod_components.calls import DecodeSound, DenoiseSound, Guidance
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import GuidedRequest
from aiprod_components.pipelines.fields import FrameRate, OneOf, Prompt
from aiprod_components.plan import PlanBuilder

SOUND_CONTAINERS = ("m4a", "wav")


class TextToAudio(GuidedRequest, frozen=True):
    """Text to a sound alone, in one stage: no pictures are made. Guidance is that of the sound."""

    needs_sound: ClassVar[bool] = True
    has_pictures: ClassVar[bool] = False
    idle: ClassVar[frozenset[str]] = frozenset(
        ("height", "width", "image", "double_frame_rate", "next_prompts", "extends", "modality_guidance_scale", "audio_guidance")
    )
    pipeline: Literal["text_to_audio"] = "text_to_audio"
    prompt: Prompt = Field(description="What is heard, in any language.")
    num_frames: int = Field(description="How long the sound is, in frames: as a video of so many, but here any number will do.")
    frame_rate: FrameRate = Field(description="Frames per second: the sound's length is counted in them.")
    height: int = 0
    width: int = 0
    output_format: Annotated[str, OneOf(SOUND_CONTAINERS)] = Field(default="m4a", description="m4a (AAC), or wav (16 bits a sample).")

    @classmethod
    def usual(cls, record: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """Guidance as the family guides sound."""
        sound = family.sampling.audio_guidance
        skip = {"scale": sound.stg_scale, "blocks": sound.stg_blocks} if sound.stg_scale else None
        return {"guidance_scale": sound.scale, "guidance_rescale": sound.rescale, "skip_guidance": skip}

    @property
    def space_multiple(self) -> int:
        return 1

    @property
    def components(self) -> tuple[str, ...]:
        return ("denoiser",)

    def spans(self, family: Family) -> list[tuple[int, int]]:
        return [(0, self.num_frames)]

    def check_shape(self, family: Family) -> None:
        family.limits.check_length(self.video)
        seconds, least, most = self.num_frames / self.frame_rate, 1 / family.grid.audio_rate, family.chaining.seconds
        if not least <= seconds <= most:
            more = "more" if seconds < least else "fewer"
            raise InvalidRequestError(
                f"num_frames must last {least:g} s at least and {most:g} s at most, got {self.num_frames} at frame_rate "
                f"{self.frame_rate:g}; ask for {more} frames",
                field="num_frames",
            )

    def record(self, steps: PlanBuilder, family: Family) -> None:
        (prompt,) = self.encode_prompts(steps, family)
        # Drafts of pictures and sound have noise levels that fit any length; so has sound alone.
        sampling = replace(self.sampling_of(family, is_draft=True)(self.video, self.seed), audio_guidance=Guidance())
        draft = steps.add("draft", DenoiseSound(prompt, self.video, sampling, self.loras_of("denoiser", family)))
        steps.add("sound", DecodeSound(draft, self.video, self.output_format))
