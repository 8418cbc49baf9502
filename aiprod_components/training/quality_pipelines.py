"""held-out scenes -> every pipeline's videos -> figures: what each does to the picture, against the exact truth

Two motions are worth telling apart here: what a person asked for in words (the judge reads it), and what was given as pictures (the
renderer knows it to the pixel).
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from aiprod_components.media.canny import canny_edges, edge_f1
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import Scene, SceneMix
from aiprod_components.training.dataset import FRAME_RATE, clips_of
from aiprod_components.training.quality import NUM_FRAMES, SIZE, Examiner, Sample, held_out_scene, png, psnr
from aiprod_components.values import Footage, Frames, Picture

KEYFRAMES = (0, 16, 32)  # the first is pinned, the others stand beside the latents
EDGE_TOLERANCE = 2  # pixels at 128x128: one of the draft, which is where the edges are followed
LONG = 81  # frames of three chunks
LONG_MOTIONS = ("stays still", "spins", "orbits", "bounces")  # those that stay in the frame for five seconds


def keyframes(examiner: Examiner, *, count: int) -> tuple[dict[str, Any], list[Sample]]:
    """Three true frames of a held-out clip and its caption -> a video: is it true where it was given, in between, and smooth?"""
    first, given_later, between = list[float](), list[float](), list[float]()
    jumps, samples = list[float](), list[Sample]()
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix())
        truth = _truth(scene)
        given = [{"picture": Picture(png(truth[frame])), "frame": frame} for frame in KEYFRAMES]
        sample = examiner.ask(scene, language="en", index=index, keyframes=given)
        samples.append(sample)
        for frame in range(NUM_FRAMES):
            likeness = _likeness(sample.frames[frame], truth[frame])
            (first if frame == 0 else given_later if frame in KEYFRAMES else between).append(likeness)
        jumps.append(_largest_step(sample.frames) / max(_largest_step(truth), 1e-3))
    figures = {
        "clips": count,
        "psnr_of_first": round(sum(first) / len(first), 2),
        "psnr_at_keyframes": round(sum(given_later) / len(given_later), 2),
        "lowest_at_a_keyframe": round(min(given_later), 2),
        "psnr_between": round(sum(between) / len(between), 2),
        "largest_step": round(sorted(jumps)[len(jumps) // 2], 2),
    }
    return figures, samples


def canny(examiner: Examiner, *, count: int, **fields: Any) -> tuple[dict[str, Any], list[Sample]]:
    """The edges of a held-out clip and its caption -> a video: are its edges where the reference has them, and does it show the rest?

    The same prompts and seeds without the reference are the rival.
    """
    ours, rivals, samples = list[float](), list[float](), list[Sample]()
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix())
        truth = _truth(scene)
        edges = canny_edges(truth[None])
        footage = Footage(encode_mp4(Frames(truth[None], FRAME_RATE)))
        sample = examiner.ask(scene, language="en", index=index, reference_video={"footage": footage}, **fields)
        rival = examiner.ask(scene, language="en", index=index)
        samples.append(sample)
        ours.append(edge_f1(canny_edges(sample.frames[None]), edges, tolerance=EDGE_TOLERANCE))
        rivals.append(edge_f1(canny_edges(rival.frames[None]), edges, tolerance=EDGE_TOLERANCE))
    colour = [sample.legible[slot] for sample in samples for slot in ("colour", "background")]
    figures = {
        "clips": count,
        "edge_f1": round(sum(ours) / count, 4),
        "edge_f1_without": round(sum(rivals) / count, 4),
        "colours_legible": round(sum(colour) / len(colour), 4),
    }
    return figures, samples


def chained(examiner: Examiner, *, count: int) -> tuple[dict[str, Any], list[Sample]]:
    """Videos of three chunks: are the steps between frames at the joins like the other steps of the same video?"""
    family = examiner.family
    overlap = family.grid.frames_in(family.chaining.overlap)
    starts = [family.chaining.window + k * (family.chaining.window - overlap) for k in range(2)]
    ratios, within, samples = list[float](), list[bool](), list[Sample]()
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix(motions=LONG_MOTIONS))
        sample = examiner.ask(scene, language="en", index=index, num_frames=LONG)
        samples.append(sample)
        steps = _steps(sample.frames)
        joins = [steps[start - 1].item() for start in starts]
        others = torch.tensor([step for number, step in enumerate(steps.tolist()) if number + 1 not in starts])
        ratios.append(max(joins) / max(others.quantile(0.5).item(), 1e-3))
        within.append(max(joins) <= others.max().item())
    return {
        "clips": count,
        "frames": LONG,
        "joins_within_range": round(sum(within) / count, 4),
        "step_at_joins": round(sorted(ratios)[count // 2], 2),
    }, samples


# Upsampler -> (size, frames, frame rate) of what it is given and of what it should make.
UPSAMPLERS: dict[str, tuple[tuple[int, int, float], tuple[int, int, float]]] = {
    "upsampler": ((64, 33, 16.0), (128, 33, 16.0)),
    "upsampler_3_2": ((64, 33, 16.0), (96, 33, 16.0)),
    "upsampler_3_4": ((64, 33, 16.0), (48, 33, 16.0)),
    "upsampler_4_1": ((32, 33, 16.0), (128, 33, 16.0)),
    "temporal_upsampler": ((128, 33, 16.0), (128, 65, 32.0)),
}


def upsamplers(examiner: Examiner, *, count: int) -> dict[str, Any]:
    """True clips, encoded, through each upsampler and decoded, against the true render at the larger size or rate.

    The rival resamples the decoded frames: bicubic in space, the mean of two neighbours in time. No network can
    be better than the true render, encoded and decoded.
    """
    return {name: _upsampled(examiner, name, count=count) for name in UPSAMPLERS if examiner.family.has(name)}


def _upsampled(examiner: Examiner, name: str, *, count: int) -> dict[str, Any]:
    low, high = UPSAMPLERS[name]
    network, ours, rivals, ceilings = examiner.family.load(name), list[float](), list[float](), list[float]()
    for index in range(count):
        scene = held_out_scene(index, mix=SceneMix())
        given, truth = (to_unit(clips_of([scene], num_frames=frames, size=size, frame_rate=rate)) for size, frames, rate in (low, high))
        with torch.inference_mode():
            latents = examiner.vae.encode(given)
            ceilings.append(psnr(examiner.vae.decode(examiner.vae.encode(truth)), truth))
            ours.append(psnr(examiner.vae.decode(network(latents)), truth))
            rivals.append(psnr(_resampled(examiner.vae.decode(latents), like=truth), truth))
    means = {"psnr": ours, "psnr_rival": rivals, "psnr_ceiling": ceilings}
    return {"clips": count, **{name: round(sum(values) / count, 2) for name, values in means.items()}}


def _resampled(clip: Float[Tensor, "1 3 T H W"], *, like: Float[Tensor, "1 3 t h w"]) -> Float[Tensor, "1 3 t h w"]:
    if clip.shape[2] != like.shape[2]:
        between = (clip[:, :, 1:] + clip[:, :, :-1]) / 2
        pairs = rearrange([clip[:, :, :-1], between], "two b c t h w -> b c (t two) h w")
        return torch.cat([pairs, clip[:, :, -1:]], dim=2)
    frames = rearrange(clip, "1 c t h w -> t c h w")
    resized = interpolate(frames, size=tuple(like.shape[-2:]), mode="bicubic", antialias=True).clamp(0, 1)
    return rearrange(resized, "t c h w -> 1 c t h w")


def _truth(scene: Scene) -> UInt8[Tensor, "T H W 3"]:
    return clips_of([scene], num_frames=NUM_FRAMES, size=SIZE)[0]


def _likeness(ours: UInt8[Tensor, "H W 3"], truth: UInt8[Tensor, "H W 3"]) -> float:
    return psnr(*(to_unit(rearrange(frame, "h w c -> 1 1 h w c")) for frame in (ours, truth)))


def _steps(frames: UInt8[Tensor, "T H W 3"]) -> Float[Tensor, " S"]:
    """How much changes from each frame to the next: mean absolute difference in levels."""
    return (frames[1:].float() - frames[:-1].float()).abs().mean(dim=(1, 2, 3))


def _largest_step(frames: UInt8[Tensor, "T H W 3"]) -> float:
    return _steps(frames).max().item()
