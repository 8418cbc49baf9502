"""prompt -> prompt embeds -> half-size latents -> upsampled -> refined -> video: the recommended pipeline"""

from typing import Literal

from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import GuidedRequest
from aiprod_components.pipelines.chunks import Recorder, Stage1, first_frame
from aiprod_components.pipelines.fields import UPSCALE, UPSCALES, Upscale
from aiprod_components.plan import PlanBuilder


class TI2VidTwoStages(GuidedRequest, frozen=True):
    """Text (and a first frame) to video: a draft at half the size, doubled, then refined in a few unguided steps."""

    pipeline: Literal["ti2vid_two_stages"] = "ti2vid_two_stages"
    upscale: Upscale = UPSCALE

    @property
    def space_multiple(self) -> int:
        return UPSCALES[self.upscale][0]

    def record(self, steps: PlanBuilder, family: Family) -> None:
        given = first_frame(self)
        stage1 = Stage1(self.sampling_of(family, is_draft=True), self.loras_of("denoiser", family), given)
        Recorder(self, steps, family).two_stages(stage1, upscale=self.upscale, give_again=given)
