"""prompt -> prompt embeds -> half-size latents -> upsampled -> refined -> video: the recommended pipeline"""

from dataclasses import replace
from typing import Literal

from aiprod_components.calls import DecodeVideo, Denoise, Guidance, Refine, Sampling, Upsample
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import VideoRequest
from aiprod_components.plan import PlanBuilder


class TI2VidTwoStages(VideoRequest, frozen=True):
    """Text (and a first frame) to video: a draft at half the size, doubled, then refined in a few unguided steps."""

    pipeline: Literal["ti2vid_two_stages"] = "ti2vid_two_stages"

    @property
    def space_multiple(self) -> int:
        return 2

    def record(self, steps: PlanBuilder, family: Family) -> None:
        half = replace(self.video, height=self.height // 2, width=self.width // 2)
        refinement = Sampling(family.sampling.refinement_sigmas, Guidance(), self.seed)
        prompt = self.encode_prompt(steps)
        half_pins = self.first_frame_pins(steps, name="first_frame_half", video=half)
        pins = self.first_frame_pins(steps, name="first_frame", video=self.video)
        draft = steps.add("draft", Denoise(prompt, half, self.guided_sampling(family, video=half), half_pins))
        doubled = steps.add("doubled", Upsample(draft, self.video))
        refined = steps.add("refined", Refine(prompt, doubled, self.video, refinement, pins))
        steps.add("video", DecodeVideo(refined, self.video))
