"""held-out scenes -> the shipped weights' videos -> figures: what the quality report says

Every clip is drawn from seeds that training never sees; what a generated clip shows is read by the judge, which knows
nothing of the networks.
"""

import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from aiprod_components.calls import EncodePrompt, Guidance, Refine, Sampling, Upsample
from aiprod_components.families.base import Family
from aiprod_components.local import LocalStages, Silent, run_plan
from aiprod_components.media.decode import decode_video
from aiprod_components.media.frames import to_bytes, to_unit
from aiprod_components.miniature.captions import Caption, write_caption
from aiprod_components.miniature.judge import read_clip, score
from aiprod_components.miniature.world import Scene, SceneMix, sample_scene
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.pipelines import parse_request
from aiprod_components.training.dataset import FIRST_HELD_OUT_SEED, FRAME_RATE, clips_of
from aiprod_components.values import Latents, Picture

NUM_FRAMES = 33
SIZE = 128


@dataclass(frozen=True)
class Sample:
    """One prompt, what its caption states, and what the judge saw of it in the video.

    `right` holds nothing for a clip that the judge refused as not clean; `legible` holds what it read of it all the same.
    """

    caption: Caption
    scene: Scene
    frames: UInt8[Tensor, "T H W 3"]
    right: dict[str, bool]
    legible: dict[str, bool]
    refused: str | None


def held_out_scene(index: int, *, mix: SceneMix) -> Scene:
    return sample_scene(random.Random(FIRST_HELD_OUT_SEED + index), mix=mix)


def held_out_caption(scene: Scene, *, language: str, index: int) -> Caption:
    """Everything that can be said of the scene, in a phrasing that training never used."""
    return write_caption(scene, language=language, rng=random.Random(FIRST_HELD_OUT_SEED + index), phrasings="held_out")


class Examiner:
    """Asks the family for videos, in this process, and looks at them."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.stages = LocalStages(family, device=torch.device("cpu"))

    def frames(self, record: dict[str, Any]) -> UInt8[Tensor, "T H W 3"]:
        plan = parse_request(record, family=self.family).plan(self.family)
        return decode_video(run_plan(plan, stages=self.stages).data)

    def ask(self, scene: Scene, *, language: str, index: int, **fields: Any) -> Sample:
        caption = held_out_caption(scene, language=language, index=index)
        return look(self.frames({"prompt": caption.text, "seed": index, **fields}), caption=caption, scene=scene)

    @cached_property
    def vae(self) -> VideoVAE:
        return cast(VideoVAE, self.family.load("vae"))


def look(frames: UInt8[Tensor, "T H W 3"], *, caption: Caption, scene: Scene) -> Sample:
    """The judge's view of a video."""
    reading = read_clip(frames, frame_rate=FRAME_RATE)
    right, legible = (score(seen, caption.attributes) for seen in (reading, replace(reading, refused=None)))
    return Sample(caption, scene, frames, right, legible, reading.refused)


def judged(samples: Sequence[Sample]) -> dict[str, Any]:
    """Shares of what was asked for that the judge saw: each attribute, all attributes together, and whole clips."""
    asked, seen, legible = Counter[str](), Counter[str](), Counter[str]()
    for sample in samples:
        asked.update(sample.right.keys())
        seen.update(slot for slot, right in sample.right.items() if right)
        legible.update(slot for slot, right in sample.legible.items() if right)
    return {
        "clips": len(samples),
        "attributes_right": round(seen.total() / asked.total(), 4),
        "attributes_legible": round(legible.total() / asked.total(), 4),
        "all_right": round(sum(all(sample.right.values()) for sample in samples) / len(samples), 4),
        "by_attribute": {slot: round(seen[slot] / asked[slot], 4) for slot in asked},
        "legible_by_attribute": {slot: round(legible[slot] / asked[slot], 4) for slot in asked},
        "refused": dict(Counter(sample.refused for sample in samples if sample.refused)),
    }


def reconstruction(examiner: Examiner, *, size: int, mix: SceneMix, count: int) -> dict[str, float]:
    """Encoded and decoded held-out clips: SSIM and PSNR (frame by frame, averaged over clips), and what the judge still sees of them.

    No generated clip can be better than this: the judge's share is the ceiling of prompt following.
    """
    ssim, decibels, right = list[float](), list[float](), list[bool]()
    for index in range(count):
        scene = held_out_scene(index, mix=mix)
        clip = to_unit(clips_of([scene], num_frames=NUM_FRAMES, size=size))
        with torch.inference_mode():
            decoded = examiner.vae.decode(examiner.vae.encode(clip))
        ssim.append(_ssim(decoded, clip))
        decibels.append(psnr(decoded, clip))
        reading = read_clip(to_bytes(decoded)[0], frame_rate=FRAME_RATE)
        right += score(reading, held_out_caption(scene, language="en", index=index).attributes).values()
    return {
        "clips": count,
        "ssim": round(sum(ssim) / count, 4),
        "psnr": round(sum(decibels) / count, 2),
        "attributes_right": round(sum(right) / len(right), 4),
    }


def following(examiner: Examiner, *, count: int, language: str = "en", mix: SceneMix = SceneMix(), **fields: Any) -> list[Sample]:
    """One video for each of `count` held-out scenes; of one object on a plain background unless `mix` says otherwise."""
    return [examiner.ask(held_out_scene(index, mix=mix), language=language, index=index, **fields) for index in range(count)]


def refinement(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """A true half-size clip, upsampled, refined and decoded, against the true full-size render; bicubic is the rival."""
    vae, wins, ours, rivals = examiner.vae, 0, [], []
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix())
        truth = to_unit(clips_of([scene], num_frames=NUM_FRAMES, size=SIZE))
        half = to_unit(clips_of([scene], num_frames=NUM_FRAMES, size=SIZE // 2))
        with torch.inference_mode():
            latents = vae.encode(half)
            frames = rearrange(vae.decode(latents), "1 c t h w -> t c h w")
            rival = rearrange(interpolate(frames, scale_factor=2, mode="bicubic").clamp(0, 1), "t c h w -> 1 c t h w")
            refined = vae.decode(_refine(examiner, scene, latents=latents, index=index))
        ours.append(psnr(refined, truth))
        rivals.append(psnr(rival, truth))
        wins += ours[-1] > rivals[-1] and _ssim(refined, truth) > _ssim(rival, truth)
    return {
        "clips": count,
        "better_than_bicubic": round(wins / count, 4),
        "psnr": round(sum(ours) / count, 2),
        "psnr_bicubic": round(sum(rivals) / count, 2),
    }


def _refine(examiner: Examiner, scene: Scene, *, latents: Tensor, index: int) -> Tensor:
    video = replace(examiner.family.video, num_frames=NUM_FRAMES, height=SIZE, width=SIZE)
    sampling = Sampling(examiner.family.sampling.refinement_sigmas, Guidance(), index)
    text = EncodePrompt(held_out_caption(scene, language="en", index=index).text, None)
    prompt = examiner.stages["text_encoder"].run(text, Silent())
    doubled = examiner.stages["upsampler"].run(Upsample(Latents(latents), video), Silent())
    return examiner.stages["refiner"].run(Refine(prompt, doubled, video, sampling), Silent()).video


def image_to_video(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """The first frame of a held-out clip and its caption -> a video: does it begin with the picture, and move as told?"""
    decibels, samples = [], []
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix())
        first = clips_of([scene], num_frames=1, size=SIZE)
        sample = examiner.ask(scene, language="en", index=index, image={"picture": Picture(png(first[0, 0]))})
        decibels.append(psnr(to_unit(sample.frames[None, :1]), to_unit(first)))
        samples.append(sample)
    motion = sum(sample.right["motion"] for sample in samples) / count
    return {"clips": count, "first_frame_psnr": round(sum(decibels) / count, 2), "motion_right": round(motion, 4)}


def png(pixels: UInt8[Tensor, "H W 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def _ssim(ours: Float[Tensor, "1 3 T H W"], truth: Float[Tensor, "1 3 T H W"]) -> float:
    a, b = (rearrange(clip, "1 c t h w -> t c h w") for clip in (ours, truth))
    return float(cast(Tensor, structural_similarity_index_measure(a, b, data_range=1.0)))


def psnr(ours: Float[Tensor, "1 3 T H W"], truth: Float[Tensor, "1 3 T H W"]) -> float:
    return float(peak_signal_noise_ratio(ours, truth, data_range=1.0))
