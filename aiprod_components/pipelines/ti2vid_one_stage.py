"""prompt -> prompt embeds -> latents at full size -> video: a quick look"""

from typing import Literal

from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import GuidedRequest
from aiprod_components.pipelines.chunks import Recorder, Stage1, first_frame
from aiprod_components.plan import PlanBuilder


class TI2VidOneStage(GuidedRequest, frozen=True):
    """Text (and a first frame) to video in one stage, without refinement."""

    pipeline: Literal["ti2vid_one_stage"] = "ti2vid_one_stage"

    @property
    def space_multiple(self) -> int:
        return 1

    @property
    def components(self) -> tuple[str, ...]:
        return ("denoiser",)

    def record(self, steps: PlanBuilder, family: Family) -> None:
        stage1 = Stage1(self.sampling_of(family, is_draft=False), self.loras_of("denoiser", family), first_frame(self))
        Recorder(self, steps, family).one_stage(stage1)
