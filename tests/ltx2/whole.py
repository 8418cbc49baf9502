"""a request of two stages -> diffusers' own pipelines from prompt to frames and sound, in this process, loaded once"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline
from torch import Tensor

from aiprod_components.calls import Denoise, Refine, Sampling
from aiprod_components.families.ltx2 import DISTILLED, LTX2Family
from aiprod_components.plan import Plan
from tests.ltx2.monolith import Made, Monolith


@dataclass(frozen=True)
class Shown:
    """Frames, as bytes and as the digest that a video bears, and sound."""

    frames: bytes
    sound: Tensor

    @property
    def frames_digest(self) -> str:
        return hashlib.sha256(self.frames).hexdigest()


class TwoStages:
    """Stage 1, the upsampler and stage 2 of a folder. `distilled`: stage 1 wears that LoRA, unless the weights are distilled."""

    def __init__(self, family: LTX2Family, *, distilled: bool = False) -> None:
        self._distilled = distilled
        self._drafter, self._refiner = Monolith(family), Monolith(family)
        if distilled and not family.is_distilled:
            self._drafter.wear({family.lora(DISTILLED).path: 1.0})
        self._refiner.become_refiner()
        upsampler = LTX2LatentUpsamplerModel.from_pretrained(family.folder / "latent_upsampler", dtype=family.dtype)
        self._upsampling: Any = LTX2LatentUpsamplePipeline(self._drafter.pipe.vae, upsampler)
        self._upsampling.set_progress_bar_config(disable=True)

    def run(self, plan: Plan, request: dict[str, Any], *, conditions: Sequence[LTX2VideoCondition] = ()) -> Shown:
        """With the samplings of the plan's two stages. The sound is stage 1's, unless the pipeline is the distilled one."""
        (drafting,) = (step.call.sampling for step in plan.steps if isinstance(step.call, Denoise))
        (refining,) = (step.call.sampling for step in plan.steps if isinstance(step.call, Refine))
        draws = torch.Generator().manual_seed(request["seed"])
        asked = {"prompt": request["prompt"], "num_frames": request["num_frames"]}
        height, width = request["height"], request["width"]
        negative = {} if self._distilled else {"negative_prompt": request["negative_prompt"]}
        small = {"height": height // 2, "width": width // 2}
        draft = _made(self._drafter, drafting, draws, conditions, **asked, **small, **negative)
        doubled = self._upsampling(latents=draft.video, output_type="latent", return_dict=False)[0]
        given = {"latents": doubled, "audio_latents": draft.audio, "noise_scale": refining.sigmas[0]}
        refined = _made(self._refiner, refining, draws, conditions, **asked, **given, height=height, width=width)
        sound = self._refiner.sound(refined.audio if self._distilled else draft.audio)
        return Shown(self._refiner.frames(refined.video), sound)


def _made(monolith: Monolith, sampling: Sampling, draws: torch.Generator, conditions: Sequence[LTX2VideoCondition], **request: Any) -> Made:
    if conditions:
        return monolith.conditioned(sampling, draws, list(conditions), **request)
    return monolith.text_to_video(sampling, draws, **request)
