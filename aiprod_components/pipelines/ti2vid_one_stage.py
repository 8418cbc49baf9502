"""prompt -> prompt embeds -> latents at full size -> video: a quick look"""

from typing import Literal

from aiprod_components.calls import DecodeVideo, Denoise
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import PlanBuilder


class TI2VidOneStage(VideoRequest, frozen=True):
    """Text (and a first frame) to video in one stage, without refinement."""

    pipeline: Literal["ti2vid_one_stage"] = "ti2vid_one_stage"

    @property
    def space_multiple(self) -> int:
        return 1

    def record(self, steps: PlanBuilder, family: Family) -> None:
        prompt = self.encode_prompt(steps)
        pins = self.first_frame_pins(steps, name="first_frame", video=self.video)
        latents = steps.add("draft", Denoise(prompt, self.video, self.guided_sampling(family, video=self.video), pins))
        steps.add("video", DecodeVideo(latents, self.video))
