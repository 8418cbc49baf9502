"""prompt -> prompt embeds -> half-size latents in a few fixed steps -> upsampled -> refined -> video: the fastest"""

from typing import Literal

from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.pipelines.chunks import Recorder, distilled_stage1, first_frame
from aiprod_components.pipelines.fields import UPSCALE, UPSCALES, Upscale
from aiprod_components.plan import PlanBuilder


class Distilled(VideoRequest, frozen=True):
    """Text (and a first frame) to video in 8 predefined steps without guidance, then refinement."""

    pipeline: Literal["distilled"] = "distilled"
    upscale: Upscale = UPSCALE

    @property
    def space_multiple(self) -> int:
        return UPSCALES[self.upscale][0]

    def record(self, steps: PlanBuilder, family: Family) -> None:
        given = first_frame(self)
        stage1 = distilled_stage1(self, family, give=given)
        Recorder(self, steps, family).two_stages(stage1, upscale=self.upscale, give_again=given)
