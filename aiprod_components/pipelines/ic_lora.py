"""a reference video -> what it controls (edges) -> latents beside the noise that stage 1 looks at -> a video that follows it"""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from aiprod_components.calls import EncodeFootage, Guide, LoraUse
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.media.footage import check_aspect, check_length, probe_footage
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.chunks import Given, Place, Recorder, distilled_stage1, first_frame
from aiprod_components.pipelines.fields import UPSCALE, UPSCALES, Reference, Upscale
from aiprod_components.plan import PlanBuilder


class ICLora(VideoRequest, frozen=True):
    """Video to video by an in-context LoRA: 8 predefined steps that look at a reference video, of which the control says what counts."""

    pipeline: Literal["ic_lora"] = "ic_lora"
    upscale: Upscale = UPSCALE
    reference_video: Reference = Field(description="The video to follow.")
    control: str = Field(default="canny", description="What is followed: the name of a LoRA of the family that takes a reference video.")
    control_scale: float = Field(default=1.0, ge=-2, le=2, allow_inf_nan=False, description="The scale of that LoRA.")

    @property
    def space_multiple(self) -> int:
        return UPSCALES[self.upscale][0]

    def check(self, family: Family) -> None:
        super().check(family)
        controls = {name: lora for name, lora in family.loras.items() if lora.control is not None}
        if self.control not in controls:
            there = ", ".join(name for name, lora in controls.items() if lora.fault is None) or "none"
            raise InvalidRequestError(f"control {self.control!r} is unknown to {family.name}; there is {there}", field="control")
        if fault := family.loras[self.control].fault:
            raise InvalidRequestError(f"control {self.control!r} does not belong to {family.name}: {fault}", field="control")
        numerator, denominator, _ = UPSCALES[self.upscale]
        for field, side in (("height", self.height), ("width", self.width)):
            draft, multiple = side * denominator // numerator, family.grid.space * family.lora(self.control).downscale
            if draft % multiple:
                whole = multiple * numerator // denominator
                raise InvalidRequestError(f"{field} must be a multiple of {whole} for control {self.control}, got {side}", field=field)
        shape = probe_footage(self.reference_video.footage)
        check_aspect(shape, height=self.height, width=self.width, field="reference_video")
        check_length(shape, num_frames=self.num_frames, frame_rate=self.frame_rate, field="reference_video")

    def record(self, steps: PlanBuilder, family: Family) -> None:
        first = first_frame(self)
        file = family.lora(self.control)

        def give(steps: PlanBuilder, place: Place) -> Given:
            chunk, video = place.chunk, place.video
            size = replace(video, height=video.height // file.downscale, width=video.width // file.downscale)
            encode = EncodeFootage(self.reference_video.footage, chunk.start, size, file.control)
            guide = Guide(steps.add(chunk.name("reference"), encode), size, 0, self.reference_video.strength)
            return replace(first(steps, place), guides=(guide,))

        stage1 = distilled_stage1(self, family, give=give)
        stage1 = replace(stage1, loras=(*stage1.loras, LoraUse(self.control, self.control_scale)))
        Recorder(self, steps, family).two_stages(stage1, upscale=self.upscale, give_again=first)
