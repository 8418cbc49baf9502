"""what every request has in common, and how it becomes a plan"""

import random
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aiprod_components.calls import EncodePrompt, EnhancePrompt, Guidance, LoraUse, Projection, Sampling
from aiprod_components.diffusion.samplers import SAMPLERS
from aiprod_components.diffusion.schedulers import SCHEDULERS, explicit
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.fields import (
    AudioGuidance,
    FirstFrame,
    FrameRate,
    LoraChoice,
    OneOf,
    ProjectedGuidance,
    Prompt,
    SkipGuidance,
)
from aiprod_components.plan import Input, Plan, PlanBuilder, Ref
from aiprod_components.values import PromptEmbeds, VideoShape

MAX_SEED = 2**63 - 1
MOST_LORAS = 8
TEMPORAL = "temporal_upsampler"  # the network that puts frames between frames

CONTAINERS = ("mp4", "png", "webp")
SOUND_ALONE = " (m4a and wav are made by pipeline text_to_audio)"


class VideoRequest(BaseModel, frozen=True):
    """What the user asks for. A pipeline adds its name, its own fields and `record`; `parse_request` fills in a family's defaults."""

    model_config = ConfigDict(extra="forbid")
    needs_sound: ClassVar[bool] = False  # only a family that makes sound can make it
    has_pictures: ClassVar[bool] = True  # else what is made is a sound alone
    idle: ClassVar[frozenset[str]] = frozenset()  # fields that would have no effect: nobody is asked for them, and they are refused

    pipeline: str
    prompt: Prompt = Field(description="What the video shows, in any language.")
    num_frames: int = Field(description="Frames of the video: 1 + a multiple of the family's time compression. One is a still.")
    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    frame_rate: FrameRate = Field(description="Frames per second.")
    seed: int = Field(default_factory=lambda: random.getrandbits(32), ge=0, le=MAX_SEED, description="The same seed gives the same frames.")
    image: FirstFrame | None = Field(default=None, description="A picture that the video begins with.")
    loras: tuple[LoraChoice, ...] = Field(default=(), max_length=MOST_LORAS, description="LoRAs of the family, and their scales.")
    double_frame_rate: bool = Field(default=False, description="Put a frame between each two of num_frames: as long, at twice the rate.")
    next_prompts: tuple[Prompt, ...] = Field(
        default=(), description="What the chunks after the first show, where a video is longer than one; the last goes on to the end."
    )
    extends: tuple[int, ...] = Field(
        default=(),
        description="Frames of the videos that this one carries on, the shortest first, each counted from the beginning: they stay as they "
        "are. An extension says it.",
    )
    enhance_prompt: bool = Field(default=False, description="Let a language model rewrite the prompt by the style guide first.")
    output_format: Annotated[str, OneOf(CONTAINERS, SOUND_ALONE)] = Field(
        default_factory=lambda fields: "png" if fields.get("num_frames") == 1 else "mp4",
        description="mp4, or for a single frame png or webp (lossless); a single frame is a png unless this says otherwise.",
    )

    @property
    def components(self) -> tuple[str, ...]:
        """The networks of the pipeline that a LoRA may change."""
        return ("denoiser", "refiner")

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

    @classmethod
    def usual(cls, record: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """Defaults that depend on what was said, in place of the family's."""
        return {}

    def yielding(self, said: Collection[str]) -> Self:
        """Without those of the family's defaults that have no effect beside the fields that were `said`."""
        return self

    @classmethod
    def check_family(cls, family: Family) -> None:
        """Raises InvalidRequestError for a family that can make none of these, whatever is asked."""
        if cls.needs_sound and not family.makes_sound:
            name = cls.model_fields["pipeline"].default
            raise InvalidRequestError(
                f"pipeline {name} is for families with sound, and {family.name} has none; name another model", field="pipeline"
            )

    def plan(self, family: Family) -> Plan:
        """The request as calls. Pure; raises InvalidRequestError when the family cannot make it."""
        self.check_family(family)
        self.check_shape(family)
        self.check(family)
        steps = PlanBuilder(family=family.name, pipeline=self.pipeline, grid=family.grid)
        self.record(steps, family)
        return steps.build()

    def check_shape(self, family: Family) -> None:
        """Raises InvalidRequestError for a length or a size that the family does not make."""
        family.limits.check(self.video)
        family.grid.check(self.video, space_multiple=self.space_multiple * family.grid.space)

    def check(self, family: Family) -> None:
        """Raises InvalidRequestError for what only the family can tell."""
        check_text(self.prompt, family=family, field="prompt")
        for text in self.next_prompts:
            check_text(text, family=family, field="next_prompts")
        self._check_extends(family)
        chunks = len(self.spans(family))
        if len(self.next_prompts) > chunks - 1:
            raise InvalidRequestError(
                f"next_prompts must be at most {chunks - 1} for {self.num_frames} frames, which are {chunks} chunks, "
                f"got {len(self.next_prompts)}",
                field="next_prompts",
            )
        if self.enhance_prompt:
            family.language_model()
        if self.double_frame_rate and not family.has(TEMPORAL):
            raise InvalidRequestError(
                f"double_frame_rate needs weights that {family.name} has not; leave it out", field="double_frame_rate"
            )
        if self.double_frame_rate and self.num_frames == 1:
            raise InvalidRequestError("double_frame_rate needs frames to put one between, and num_frames is 1", field="double_frame_rate")
        if self.has_pictures and self.output_format != "mp4" and self.num_frames != 1:
            raise InvalidRequestError(
                f"output_format {self.output_format} is for one frame, and num_frames is {self.num_frames}; ask for mp4, or for one frame",
                field="output_format",
            )
        names = [lora.name for lora in self.loras]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidRequestError(f"loras names {twice!r} twice; give it one scale", field="loras")
        for name in names:
            file = family.lora(name)
            if file.control is not None:
                raise InvalidRequestError(
                    f"lora {name!r} follows a reference video; say control={name!r} with a reference_video instead", field="loras"
                )
            if file.component not in self.components:
                raise InvalidRequestError(f"lora {name!r} changes the {file.component}, which {self.pipeline} does not use", field="loras")

    def _check_extends(self, family: Family) -> None:
        least = family.grid.frames_in(family.chaining.overlap)
        for length, longer in pairwise((*self.extends, self.num_frames)):
            if length < least:
                raise InvalidRequestError(
                    f"extends: a video goes on from the last {least} frames of the one that it carries on, which has only {length}; "
                    f"carry on one of {least} frames or more",
                    field="extends",
                )
            if length >= longer or (length - 1) % family.grid.time:
                raise InvalidRequestError(
                    f"extends must be lengths of 1 + a multiple of {family.grid.time} that rise to less than num_frames "
                    f"{self.num_frames}, got {', '.join(map(str, self.extends))}",
                    field="extends",
                )

    def spans(self, family: Family) -> list[tuple[int, int]]:
        """The first frame of every chunk, and the first behind it."""
        return family.chaining.spans(self.num_frames, family.grid, frame_rate=self.frame_rate, extends=self.extends)

    def told(self, family: Family) -> list[str]:
        """What each chunk shows: `prompt`, then `next_prompts` in turn, the last of them to the end."""
        texts = [self.prompt, *self.next_prompts]
        return [texts[min(index, len(texts) - 1)] for index in range(len(self.spans(family)))]

    def loras_of(self, component: str, family: Family) -> tuple[LoraUse, ...]:
        """Those of the request that change this network."""
        return tuple(LoraUse(lora.name, lora.scale) for lora in self.loras if family.lora(lora.name).component == component)

    def refinement(self, family: Family, *, seed: int) -> Sampling:
        """Stage 2: from a noised draft, without guidance."""
        return Sampling(family.sampling.refinement_sigmas, Guidance(), seed)

    @property
    def negative(self) -> str | None:
        """The prompt to steer away from, where the pipeline has one."""
        return None

    def encode_prompts(self, steps: PlanBuilder, family: Family) -> list[Ref[PromptEmbeds]]:
        """The prompt of every chunk."""
        return self.encode_texts(steps, self.texts(steps, family))

    def encode_texts(self, steps: PlanBuilder, texts: list[Input[str]], *, alone: bool = False) -> list[Ref[PromptEmbeds]]:
        """Each text encoded once; `alone` without what is to be steered away from."""
        name, negative = ("prompt_alone", None) if alone else ("prompt", self.negative)
        encoded: dict[Input[str], Ref[PromptEmbeds]] = {}
        for text in texts:
            if text not in encoded:
                encoded[text] = steps.add(name if not encoded else f"{name}_{len(encoded) + 1}", EncodePrompt(text, negative))
        return [encoded[text] for text in texts]

    def texts(self, steps: PlanBuilder, family: Family) -> list[Input[str]]:
        """What each chunk shows. Enhanced, each carries on from those before it, in the enhancer's words."""
        texts: list[Input[str]] = [*self.told(family)]
        if not self.enhance_prompt:
            return texts
        enhanced: list[Input[str]] = []
        for index, text in enumerate(texts):
            name = "enhanced" if index == 0 else f"enhanced_{index + 1}"
            enhanced.append(steps.add(name, EnhancePrompt(text, tuple(enhanced))))
        return enhanced


class GuidedRequest(VideoRequest, frozen=True):
    """What is asked of a pipeline whose stage 1 is guided, in steps of the client's choice."""

    negative_prompt: str = Field(default="", description="What to steer away from, where there is guidance.")
    num_inference_steps: int = Field(ge=1, description="Denoising steps of stage 1.")
    guidance_scale: float = Field(ge=1, le=30, allow_inf_nan=False, description="How closely to follow the prompt; 1 is no guidance.")
    guidance_rescale: float = Field(
        default=0.0, ge=0, le=1, allow_inf_nan=False, description="How far guidance's contrast is brought back to the prediction's."
    )
    guidance_interval: tuple[float, float] = Field(
        default=(0.0, 1.0), description="The noise levels (lowest, highest) at which there is guidance."
    )
    skip_guidance: SkipGuidance | None = Field(default=None, description="Spatiotemporal skip guidance (STG).")
    projected_guidance: ProjectedGuidance | None = Field(default=None, description="Adaptive projected guidance (APG).")
    modality_guidance_scale: float = Field(
        default=1.0, ge=1, le=30, allow_inf_nan=False, description="How closely pictures keep to the sound; 1 is no guidance."
    )
    audio_guidance: AudioGuidance = Field(default=AudioGuidance(), description="Guidance of the sound, where the family makes it.")
    sampler: Annotated[str, OneOf(tuple(SAMPLERS))] = Field(default="euler", description="Who takes the steps.")
    scheduler: Annotated[str, OneOf(tuple(SCHEDULERS))] = Field(default="shifted_flow", description="Where the steps are.")
    sigmas: tuple[float, ...] | None = Field(
        default=None, description="The noise levels themselves, falling from 1 to 0, in place of scheduler and num_inference_steps."
    )

    def yielding(self, said: Collection[str]) -> Self:
        fields: dict[str, Any] = {}
        if self.skip_guidance is None and "audio_guidance" not in said:
            fields["audio_guidance"] = self.audio_guidance.model_copy(update={"skip_scale": 0.0})
        if self.guidance.is_none and "guidance_rescale" not in said:
            fields["guidance_rescale"] = 0.0
        return self.model_copy(update=fields)

    def check(self, family: Family) -> None:
        super().check(family)
        check_text(self.negative_prompt, family=family, field="negative_prompt")
        sigmas = None if self.sigmas is None else explicit(self.sigmas)
        if sigmas is not None and sigmas[0] != 1.0:
            raise InvalidRequestError(f"sigmas must begin with 1, pure noise, got {sigmas[0]:g}", field="sigmas")
        field, steps = ("num_inference_steps", self.num_inference_steps) if sigmas is None else ("sigmas", len(sigmas) - 1)
        if steps > family.limits.max_steps:
            raise InvalidRequestError(f"{field} must be 1 to {family.limits.max_steps} steps, got {steps}", field=field)
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise InvalidRequestError(
                f"guidance_interval must be two noise levels from 0 to 1, the lower one first, got {low:g} and {high:g}",
                field="guidance_interval",
            )
        self._check_guidance_is_used()
        self._check_sound(family)
        if self.skip_guidance is None:
            return
        if not family.attention_blocks:
            raise InvalidRequestError(
                f"skip_guidance: no block of {family.name} can go without attention; leave it out", field="skip_guidance"
            )
        last, skipped = family.attention_blocks - 1, self.skip_guidance.blocks
        if any(block > last for block in skipped):
            raise InvalidRequestError(
                f"skip_guidance.blocks must be 0 to {last} for {family.name}, got {max(skipped)}", field="skip_guidance"
            )

    def _check_guidance_is_used(self) -> None:
        """Raises InvalidRequestError for what has no effect without guidance, rather than making a video as if it had not been said."""
        unguided = {
            "negative_prompt": bool(self.negative_prompt) and self.negative is None,
            "projected_guidance": self.projected_guidance is not None and self.guidance_scale == 1,
            "guidance_rescale": self.guidance_rescale > 0 and self.guidance.is_none,
            "guidance_interval": self.guidance_interval != (0.0, 1.0) and self.guidance.is_none and self._audio_guidance.is_none,
        }
        if field := next((field for field, is_idle in unguided.items() if is_idle), None):
            raise InvalidRequestError(f"{field} needs guidance, and guidance_scale is 1; raise it or leave {field} out", field=field)

    def _check_sound(self, family: Family) -> None:
        silent = {"modality_guidance_scale": self.modality_guidance_scale != 1, "audio_guidance": self.audio_guidance != AudioGuidance()}
        if not family.makes_sound and (field := next((field for field, used in silent.items() if used), None)):
            raise InvalidRequestError(f"{field} is for sound, and {family.name} makes none; leave it out", field=field)
        if self.audio_guidance.skip_scale and self.skip_guidance is None:
            raise InvalidRequestError(
                "audio_guidance: skip_scale needs the blocks that skip_guidance names; give it, or leave skip_scale out",
                field="audio_guidance",
            )

    @property
    def guidance(self) -> Guidance:
        skip, projected = self.skip_guidance, self.projected_guidance
        return Guidance(
            scale=self.guidance_scale,
            rescale=self.guidance_rescale,
            stg_scale=0.0 if skip is None else skip.scale,
            stg_blocks=() if skip is None else skip.blocks,
            modality_scale=self.modality_guidance_scale,
            projection=None if projected is None else Projection(projected.parallel, projected.threshold, projected.momentum),
            interval=self.guidance_interval,
        )

    @property
    def _audio_guidance(self) -> Guidance:
        asked, pictures = self.audio_guidance, self.guidance
        return Guidance(
            scale=asked.scale,
            rescale=asked.rescale,
            stg_scale=asked.skip_scale,
            stg_blocks=pictures.stg_blocks if asked.skip_scale else (),
            modality_scale=asked.modality_scale,
            interval=pictures.interval,
        )

    def sampling_of(self, family: Family, *, is_draft: bool) -> Callable[[VideoShape, int], Sampling]:
        """Stage 1, of latents of a shape and a seed: from pure noise, with the request's steps and guidance."""
        audio = self._audio_guidance if family.makes_sound else Guidance()

        def sampling(video: VideoShape, seed: int) -> Sampling:
            fixed = family.sampling.draft_shift if is_draft else None
            shift = family.sampling.shift.at(family.grid.tokens_of(video)) if fixed is None else fixed
            sigmas = self.sigmas or SCHEDULERS[self.scheduler](self.num_inference_steps, shift=shift)
            return Sampling(sigmas, self.guidance, seed, self.sampler, audio)

        return sampling

    @property
    def negative(self) -> str | None:
        return None if self.guidance_scale == self.audio_guidance.scale == 1.0 else self.negative_prompt


def rate_said(record: Mapping[str, Any], *, otherwise: float) -> float:
    """The frame rate that was asked for. One that is none is refused by its own name, later."""
    try:
        return TypeAdapter(FrameRate).validate_python(record["frame_rate"])
    except (KeyError, ValidationError):
        return otherwise


def check_text(text: str, *, family: Family, field: str) -> None:
    """Raises InvalidRequestError when a text is longer than the family reads."""
    if (size := len(text.encode())) > family.limits.max_prompt_bytes:
        raise InvalidRequestError(
            f"{field} must be at most {family.limits.max_prompt_bytes} bytes of UTF-8, got {size}; shorten it", field=field
        )
