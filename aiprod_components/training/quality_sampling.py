"""held-out prompts -> drafts, sampled in one way after another -> distance from the exact solution, and what the judge sees

Stage 1 alone, at half the size: prompts and noise stay the same from one way of sampling to the next, so nothing but the way differs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import EVALUATIONS, Denoise, EncodePrompt, Guidance, Projection, Sampling
from aiprod_components.diffusion.schedulers import SCHEDULERS
from aiprod_components.local import Silent
from aiprod_components.media.frames import to_bytes
from aiprod_components.miniature.world import SceneMix
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.training.dataset import clips_of
from aiprod_components.training.quality import NUM_FRAMES, SIZE, Examiner, held_out_caption, held_out_scene, judged, look

DRAFT_SIZE = SIZE // 2
BATCH = 12  # drafts
REFERENCE_SAMPLER, REFERENCE_STEPS = "heun", 100
BUDGETS = (8, 12, 20, 40, 60, 80)  # network calls of one draft, every pass of guidance counted
FRESH_NOISE = ("euler_ancestral",)  # samplers whose drafts are no solution of the same equation
COMPARED = (("euler", 40), ("euler", 20), ("gradient_estimation", 20))
GUIDED_STEPS = 30
SCHEDULED_STEPS = (10, 30)
THRESHOLDS = (0.0, 0.05, 0.1, 0.2)  # of a guidance that is about 0.1 to 0.4 at high noise; 0 is no bound
SHARES = ("attributes_legible", "attributes_right", "all_right")


@dataclass(frozen=True)
class Way:
    """How a draft is sampled."""

    guidance: Guidance
    steps: int
    sampler: str = "euler"
    scheduler: str = "shifted_flow"


class Drafts:
    """`count` held-out prompts (English, one object on a plain background), and what becomes of each in a way of sampling."""

    def __init__(self, examiner: Examiner, *, count: int) -> None:
        self.scenes = [held_out_scene(index, mix=SceneMix()) for index in range(count)]
        self.captions = [held_out_caption(scene, language="en", index=index) for index, scene in enumerate(self.scenes)]
        self._examiner = examiner
        self._denoiser = cast(Denoiser, examiner.stages["denoiser"])
        self._video = replace(examiner.family.video, num_frames=NUM_FRAMES, height=DRAFT_SIZE, width=DRAFT_SIZE)
        encoder = examiner.stages["text_encoder"]
        self._prompts = [encoder.run(EncodePrompt(caption.text, ""), Silent()) for caption in self.captions]

    @property
    def own_guidance(self) -> Guidance:
        """The family's."""
        return self._examiner.family.sampling.guidance

    def network_calls(self, way: Way) -> int:
        return self._sampling(way, seed=0).network_calls

    def latents(self, way: Way) -> Float[Tensor, "N C T H W"]:
        """The drafts before decoding; a prompt's noise is always that of its number."""
        calls = [Denoise(prompt, self._video, self._sampling(way, seed=seed)) for seed, prompt in enumerate(self._prompts)]
        return torch.cat([self._denoise(calls[start : start + BATCH]) for start in range(0, len(calls), BATCH)])

    def frames(self, latents: Float[Tensor, "N C T H W"]) -> UInt8[Tensor, "N F Y X 3"]:
        with torch.inference_mode():
            return torch.cat([to_bytes(self._examiner.vae.decode(few)) for few in latents.split(BATCH)])

    def shares(self, frames: UInt8[Tensor, "N F Y X 3"]) -> dict[str, float]:
        """What the judge sees of what the prompts ask for."""
        clips = zip(frames, self.captions, self.scenes, strict=True)
        figures = judged([look(clip, caption=caption, scene=scene) for clip, caption, scene in clips])
        return {name: figures[name] for name in SHARES}

    @property
    def reference_way(self) -> Way:
        """Many times the usual number of steps, of second order."""
        return Way(self.own_guidance, REFERENCE_STEPS, REFERENCE_SAMPLER)

    @cached_property
    def reference(self) -> Float[Tensor, "N C T H W"]:
        """What stands for the exact solution of the flow's equation, under the family's guidance."""
        return self.latents(self.reference_way)

    @cached_property
    def true_saturation(self) -> float:
        """Of the scenes as they should be."""
        return saturation(clips_of(self.scenes, num_frames=NUM_FRAMES, size=DRAFT_SIZE))

    def _sampling(self, way: Way, *, seed: int) -> Sampling:
        family = self._examiner.family
        shift = family.sampling.shift.at(family.grid.tokens_of(self._video))
        return Sampling(SCHEDULERS[way.scheduler](way.steps, shift=shift), way.guidance, seed, way.sampler)

    def _denoise(self, calls: Sequence[Denoise]) -> Float[Tensor, "N C T H W"]:
        states = [self._denoiser.start(call) for call in calls]
        while states[0].done < states[0].total:
            states = self._denoiser.step(states)
        return torch.cat([self._denoiser.finish(state).video for state in states])


@lru_cache(maxsize=1)
def drafts_of(examiner: Examiner, count: int) -> Drafts:
    """Kept for the next measure of as many prompts: the reference takes longer than anything that is compared with it."""
    return Drafts(examiner, count=count)


def saturation(frames: UInt8[Tensor, "N F Y X 3"]) -> float:
    """How far a pixel's strongest channel is above its weakest, on average, in [0, 1]."""
    return float((frames.amax(dim=-1) - frames.amin(dim=-1)).float().mean() / 255)


def distances(ours: Float[Tensor, "N C T H W"], reference: Float[Tensor, "N C T H W"]) -> Float[Tensor, " N"]:
    """Root mean square difference of each draft; latents have a deviation of about 1."""
    return (ours - reference).square().mean(dim=(1, 2, 3, 4)).sqrt()


# --- samplers
def sampler_curves(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """Every deterministic sampler at every budget of network calls: distance from the reference, and what the judge sees."""
    drafts = drafts_of(examiner, count)
    known = dict[Way, dict[str, Any]]()

    def figures(way: Way) -> dict[str, Any]:
        return known[way] if way in known else known.setdefault(way, _solved(drafts, way))

    samplers = [name for name in EVALUATIONS if name not in FRESH_NOISE]
    return {
        "clips": count,
        "guidance_scale": drafts.own_guidance.scale,
        "reference": {"sampler": REFERENCE_SAMPLER, **_solved(drafts, drafts.reference_way)},
        "curves": {name: [figures(way) for way in ways_within(drafts, sampler=name, budgets=BUDGETS)] for name in samplers},
        "comparison": {f"{name} {steps} steps": figures(Way(drafts.own_guidance, steps, name)) for name, steps in COMPARED},
    }


def ways_within(drafts: Drafts, *, sampler: str, budgets: Iterable[int]) -> list[Way]:
    """For each budget the number of steps whose network calls come nearest."""
    ways = [Way(drafts.own_guidance, steps, sampler) for steps in range(1, REFERENCE_STEPS + 1)]
    return [min(ways, key=lambda way: abs(drafts.network_calls(way) - budget)) for budget in budgets]


def _solved(drafts: Drafts, way: Way) -> dict[str, Any]:
    """A draft that ends as another clip is far off and weighs on the mean; the median shows how well the others are solved."""
    latents = drafts.reference if way == drafts.reference_way else drafts.latents(way)
    errors = distances(latents, drafts.reference)
    return {
        "steps": way.steps,
        "network_calls": drafts.network_calls(way),
        "error": round(float(errors.mean()), 5),
        "error_median": round(float(errors.quantile(0.5)), 5),
        **drafts.shares(drafts.frames(latents)),
    }


# --- schedulers
def schedule_table(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """Euler in few steps and in the usual number, wherever each scheduler puts them."""
    drafts = drafts_of(examiner, count)
    rows = {
        name: {str(steps): _solved(drafts, Way(drafts.own_guidance, steps, scheduler=name)) for steps in SCHEDULED_STEPS}
        for name in SCHEDULERS
    }
    return {"clips": count, "sampler": "euler", "schedulers": rows}


# --- guidance
def guider_table(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """Every kind of guidance: what the judge sees, what it costs, and how much more saturated than the true renders it comes out.

    Which block skip guidance leaves out and how far projected guidance is bounded is tried on a part of the prompts first.
    """
    drafts = Drafts(examiner, count=count)
    few, fewer = (Drafts(examiner, count=max(count // part, 1)) for part in (2, 4))
    blocks = {str(block): _guided(few, skipping(block)) for block in range(examiner.family.attention_blocks)}
    thresholds = {f"{bound:g}": _guided(fewer, projecting(6.0, threshold=bound)) for bound in THRESHOLDS}
    block, threshold = _best(blocks), _best(thresholds)
    settings = guidance_settings(block=int(block), threshold=float(threshold))
    return {
        "clips": count,
        "steps": GUIDED_STEPS,
        "skipped_block": {"chosen": block, "clips": len(few.scenes), "tried": blocks},
        "threshold": {"chosen": threshold, "clips": len(fewer.scenes), "tried": thresholds},
        "settings": {name: _guided(drafts, guidance) for name, guidance in settings.items()},
    }


def guidance_settings(*, block: int, threshold: float) -> dict[str, Guidance]:
    """By the names of the table; `block` is the attention block that skip guidance leaves out, `threshold` bounds projected guidance."""
    return {
        "none": Guidance(),
        "CFG 3": Guidance(3.0),
        "CFG 3, rescale 0.7": Guidance(3.0, rescale=0.7),
        "CFG 3 at noise levels from 0.3": Guidance(3.0, interval=(0.3, 1.0)),
        f"STG 1 in block {block}": skipping(block),
        f"CFG 3 + STG 1 in block {block}": replace(skipping(block), scale=3.0),
        "APG 3": projecting(3.0, threshold=threshold),
        "CFG 6": Guidance(6.0),
        "APG 6": projecting(6.0, threshold=threshold),
    }


def skipping(block: int) -> Guidance:
    """Skip guidance alone."""
    return Guidance(stg_scale=1.0, stg_blocks=(block,))


def projecting(scale: float, *, threshold: float) -> Guidance:
    """Nothing of the guidance along the prediction, and momentum against the steps before, as its authors recommend."""
    return Guidance(scale, projection=Projection(parallel=0.0, threshold=threshold, momentum=-0.5))


def _guided(drafts: Drafts, guidance: Guidance) -> dict[str, Any]:
    way = Way(guidance, GUIDED_STEPS)
    frames = drafts.frames(drafts.latents(way))
    relative = saturation(frames) / drafts.true_saturation
    return {"network_calls": drafts.network_calls(way), **drafts.shares(frames), "saturation": round(relative, 4)}


def _best(tried: dict[str, dict[str, Any]]) -> str:
    """The one that the judge found most right in; most legible where that is the same for several, and then the first."""
    return max(tried, key=lambda name: (tried[name]["attributes_right"], tried[name]["attributes_legible"]))
