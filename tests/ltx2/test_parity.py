"""AIPROD's stages, one call after the other, against diffusers' pipelines in one: the same bits, in float32"""

import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf
from PIL import Image

from aiprod_components.calls import Denoise, EncodeFootage, Refine
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import LocalStages, Silent
from aiprod_components.media.encode import encode_mp4
from aiprod_components.pipelines import parse_request
from aiprod_components.plan import Plan, fill
from aiprod_components.stages.ltx2.latents import Normalization
from aiprod_components.stages.reference import read_reference
from aiprod_components.values import Footage, Frames, Latents, Picture, Video, Waveform
from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import VERSIONS
from tests.ltx2.monolith import Made, Monolith

PROMPT = {"prompt": "a cat walks over wet stones", "seed": 7}
NEGATIVE = {**PROMPT, "negative_prompt": "blurry"}


class Split:
    """A plan run stage by stage, with all that came out on the way."""

    def __init__(self, family: LTX2Family, request: dict[str, Any], stages: LocalStages) -> None:
        self.family = family
        self.plan: Plan = parse_request(request, family=family).plan(family)
        self.results: dict[str, Any] = {}
        for step in self.plan.steps:
            self.results[step.name] = stages[step.call.stage].run(fill(step.call, self.results), Silent())

    def call(self, step: str) -> Any:
        return next(each.call for each in self.plan.steps if each.name == step)

    def made(self, step: str) -> Made:
        """The latents of a step as the VAEs have them."""
        latents: Latents = self.results[step]
        assert latents.audio is not None
        return Made(Normalization.of_video(self.family, device=torch.device("cpu")).undone(latents.video), latents.audio)

    def has_bytes(self, frames: bytes) -> bool:
        return cast(Video, self.results["video"]).frames_digest == hashlib.sha256(frames).hexdigest()

    @property
    def sound(self) -> torch.Tensor:
        return cast(Waveform, self.results["sound"]).samples


FamilyOf = Callable[..., LTX2Family]
Split_ = Callable[..., Split]


@pytest.fixture(scope="session")
def family_of(folder_of: FolderOf) -> FamilyOf:
    @cache
    def family(version: str, variant: str, precision: str = "float32") -> LTX2Family:
        loras = folder_of(version).parent / "loras"
        return cast(
            LTX2Family, make_family("ltx2", weights=str(folder_of(version)), loras=str(loras), variant=variant, precision=precision)
        )

    return family


@pytest.fixture(scope="session")
def split(family_of: FamilyOf) -> Split_:
    @cache
    def stages(version: str, variant: str) -> LocalStages:
        return LocalStages(family_of(version, variant), device=torch.device("cpu"))

    def run(version: str, request: dict[str, Any], variant: str = "dev") -> Split:
        return Split(family_of(version, variant), request, stages(version, variant))

    return run


def same(one: Made, other: Made) -> bool:
    return torch.equal(one.video, other.video) and torch.equal(one.audio, other.audio)


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(width: int, height: int, seed: int = 0) -> bytes:
    noise = torch.randint(0, 256, (height // 8 + 1, width // 8 + 1, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.numpy()).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "asked",
    [
        {"num_frames": 9, "height": 64, "width": 96, "num_inference_steps": 3},
        {
            "num_frames": 17,
            "height": 96,
            "width": 64,
            "num_inference_steps": 2,
            "frame_rate": 30,
            "guidance_scale": 5,
            "guidance_rescale": 0,
        },
        {"num_frames": 25, "height": 64, "width": 64, "sigmas": (1.0, 0.8, 0.4, 0.0), "modality_guidance_scale": 1.5, "seed": 11},
        {
            "num_frames": 9,
            "height": 64,
            "width": 64,
            "num_inference_steps": 2,
            "audio_guidance": {"scale": 2.5, "modality_scale": 4, "rescale": 0.2},
        },
    ],
    ids=["as it comes", "other scales", "own noise levels", "other sound"],
)
def test_text_to_video_in_one_stage_is_the_same(version: str, asked: dict[str, Any], split: Split_, family_of: FamilyOf) -> None:
    request: dict[str, Any] = {**NEGATIVE, **asked, "pipeline": "ti2vid_one_stage"}
    if "audio_guidance" in asked and family_of(version, "dev").attention_blocks:
        request["audio_guidance"] = {**asked["audio_guidance"], "skip_scale": 0.5}
    ours = split(version, request)
    sampling = ours.call("draft").sampling
    monolith = Monolith(family_of(version, "dev"))
    size = {name: request[name] for name in ("num_frames", "height", "width", "frame_rate") if name in request}
    theirs = monolith.text_to_video(
        sampling, generator(request["seed"]), prompt=request["prompt"], negative_prompt=request["negative_prompt"], **size
    )
    assert same(ours.made("draft"), theirs)
    assert ours.has_bytes(monolith.frames(theirs.video))
    assert torch.equal(ours.sound, monolith.sound(theirs.audio))


@pytest.mark.parametrize("version", VERSIONS)
def test_two_guided_stages_are_the_same_in_bfloat16(version: str, family_of: FamilyOf) -> None:
    family = family_of(version, "dev", "bfloat16")
    request = {**NEGATIVE, "num_frames": 9, "height": 64, "width": 128, "num_inference_steps": 2}
    ours = Split(family, request, LocalStages(family, device=torch.device("cpu")))
    monolith, draws = Monolith(family), generator()
    drafting, refining = cast(Denoise, ours.call("draft")).sampling, cast(Refine, ours.call("refined")).sampling
    asked = {"prompt": PROMPT["prompt"], "num_frames": 9}
    draft = monolith.text_to_video(drafting, draws, negative_prompt="blurry", height=32, width=64, **asked)
    assert same(ours.made("draft"), draft)
    monolith.become_refiner()
    refined = refine(monolith, refining, draws, Made(monolith.doubled(draft.video), draft.audio), height=64, width=128, **asked)
    assert torch.equal(ours.made("refined").video, refined.video)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("width", "height"), [(96, 64), (300, 200), (60, 40)], ids=["its size", "larger", "smaller"])
def test_image_to_video_in_one_stage_is_the_same(version: str, width: int, height: int, split: Split_, family_of: FamilyOf) -> None:
    file, size = picture(width, height), {"num_frames": 17, "height": 64, "width": 96}
    request = {**NEGATIVE, **size, "num_inference_steps": 2, "pipeline": "ti2vid_one_stage", "image": {"picture": Picture(file)}}
    ours = split(version, request)
    monolith = Monolith(family_of(version, "dev"))
    theirs = monolith.image_to_video(
        ours.call("draft").sampling, generator(), file, prompt=PROMPT["prompt"], negative_prompt="blurry", **size
    )
    assert same(ours.made("draft"), theirs)
    assert ours.has_bytes(monolith.frames(theirs.video))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("frames", "height", "width"), [(9, 64, 128), (17, 128, 64)])
def test_two_guided_stages_are_the_same(version: str, frames: int, height: int, width: int, split: Split_, family_of: FamilyOf) -> None:
    family = family_of(version, "dev")
    ours = split(version, {**NEGATIVE, "num_frames": frames, "height": height, "width": width, "num_inference_steps": 2})
    monolith, draws = Monolith(family), generator()
    drafting, refining = cast(Denoise, ours.call("draft")).sampling, cast(Refine, ours.call("refined")).sampling
    asked = {"prompt": PROMPT["prompt"], "num_frames": frames}
    draft = monolith.text_to_video(drafting, draws, negative_prompt="blurry", height=height // 2, width=width // 2, **asked)
    assert same(ours.made("draft"), draft)
    doubled = monolith.doubled(draft.video)
    # Normalized, as stages hand them on: taken back they would be rounded twice more than diffusers' own, which never were.
    normalized = Normalization.of_video(family, device=torch.device("cpu")).done(doubled)
    assert torch.equal(ours.results["doubled"].video, normalized)
    monolith.become_refiner()
    refined = refine(monolith, refining, draws, Made(doubled, draft.audio), height=height, width=width, **asked)
    assert same(Made(ours.made("refined").video, refined.audio), refined)
    assert ours.has_bytes(monolith.frames(refined.video))
    assert torch.equal(ours.sound, monolith.sound(draft.audio)), "the sound of stage 1 is final"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", ["dev", "distilled"], ids=["by a LoRA", "by its weights"])
def test_two_distilled_stages_are_the_same(version: str, variant: str, split: Split_, family_of: FamilyOf) -> None:
    family = family_of(version, variant)
    ours = split(version, {**PROMPT, "num_frames": 9, "height": 128, "width": 64, "pipeline": "distilled"}, variant)
    monolith, draws = Monolith(family), generator()
    if variant == "dev":
        monolith.wear({family.lora("distilled").path: 1.0})
    drafting, refining = cast(Denoise, ours.call("draft")).sampling, cast(Refine, ours.call("refined")).sampling
    asked = {"prompt": PROMPT["prompt"], "num_frames": 9}
    draft = monolith.text_to_video(drafting, draws, height=64, width=32, **asked)
    assert same(ours.made("draft"), draft)
    monolith.become_refiner()
    doubled = monolith.doubled(draft.video)
    refined = refine(monolith, refining, draws, Made(doubled, draft.audio), height=128, width=64, **asked)
    assert same(ours.made("refined"), refined)
    assert ours.has_bytes(monolith.frames(refined.video))
    assert torch.equal(ours.sound, monolith.sound(refined.audio)), "the sound of stage 2 is final"


@pytest.mark.parametrize("version", VERSIONS)
def test_keyframes_are_the_same(version: str, split: Split_, family_of: FamilyOf) -> None:
    family = family_of(version, "dev")
    first, middle, last = (picture(width, 70, seed) for seed, width in enumerate((96, 130, 64)))
    keyframes = [
        {"picture": Picture(first), "frame": 0},
        {"picture": Picture(middle), "frame": 9, "strength": 0.7},
        {"picture": Picture(last), "frame": 17, "strength": 0.9},
    ]
    request = {**NEGATIVE, "num_frames": 25, "height": 64, "width": 128, "num_inference_steps": 2, "keyframes": keyframes}
    ours = split(version, request)
    monolith, draws = Monolith(family), generator()
    conditions = [
        LTX2VideoCondition(Image.open(io.BytesIO(file)), index=index, strength=strength)
        for file, index, strength in ((first, 0, 1.0), (middle, 2, 0.7), (last, 3, 0.9))
    ]
    asked = {"prompt": PROMPT["prompt"], "num_frames": 25}
    drafting, refining = cast(Denoise, ours.call("draft")).sampling, cast(Refine, ours.call("refined")).sampling
    draft = monolith.conditioned(drafting, draws, conditions, negative_prompt="blurry", height=32, width=64, **asked)
    assert same(ours.made("draft"), draft)
    monolith.become_refiner()
    doubled = {"latents": monolith.doubled(draft.video), "audio_latents": draft.audio}
    refined = monolith.conditioned(refining, draws, conditions, height=64, width=128, noise_scale=refining.sigmas[0], **doubled, **asked)
    assert same(ours.made("refined"), refined)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("variant", "control", "downscale"), [("dev", "edges", 1), ("distilled", "pose", 2)])
def test_a_reference_video_is_followed_the_same(
    version: str, variant: str, control: str, downscale: int, split: Split_, family_of: FamilyOf
) -> None:
    family = family_of(version, variant)
    size = {"height": 128, "width": 256, "num_frames": 9}
    footage = Footage(encode_mp4(Frames(moving(**size), 24.0)))
    reference = {"footage": footage, "strength": 0.8}
    asked = {
        "pipeline": "ic_lora",
        "control": control,
        "control_scale": 0.9,
        "reference_video": reference,
        "image": {"picture": Picture(picture(96, 48))},
    }
    ours = split(version, {**PROMPT, **size, **asked}, variant)
    call = cast(EncodeFootage, ours.call("reference"))
    shown = read_reference(call, Silent())[0].numpy()
    assert shown.shape == (9, 64 // downscale, 128 // downscale, 3)
    monolith, draws = Monolith(family), generator()
    monolith.wear({family.lora(use.name).path: use.scale for use in cast(Denoise, ours.call("draft")).loras})
    conditions = [LTX2ReferenceCondition([Image.fromarray(frame) for frame in shown], strength=0.8)]
    first = [LTX2VideoCondition(fitted(picture(96, 48), height=64, width=128, crf=family.version.picture_crf), crf=0)]
    theirs = monolith.following(
        cast(Denoise, ours.call("draft")).sampling,
        draws,
        conditions,
        downscale=downscale,
        conditions=first,
        prompt=PROMPT["prompt"],
        num_frames=9,
        height=64,
        width=128,
    )
    assert same(ours.made("draft"), theirs)


def moving(num_frames: int, height: int, width: int) -> torch.Tensor:
    """A square that goes from left to right."""
    frames = torch.full((1, num_frames, height, width, 3), 40, dtype=torch.uint8)
    for number in range(num_frames):
        left = number * (width - 64) // num_frames
        frames[0, number, 32:96, left : left + 64] = torch.tensor([220, 90, 30], dtype=torch.uint8)
    return frames


def fitted(file: bytes, *, height: int, width: int, crf: int) -> Image.Image:
    """A first frame's picture as it is read for stage 1; diffusers' condition pipelines would resize it without a filter."""
    pixels = apply_image_conditioning_crf(np.array(Image.open(io.BytesIO(file)).convert("RGB")), crf)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def refine(monolith: Monolith, sampling: Any, draws: torch.Generator, draft: Made, **asked: Any) -> Made:
    latents = {"latents": draft.video, "audio_latents": draft.audio}
    return monolith.text_to_video(sampling, draws, noise_scale=sampling.sigmas[0], **latents, **asked)
