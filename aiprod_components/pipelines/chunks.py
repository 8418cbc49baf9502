"""a video of any length -> chunks of the length that a family was trained on -> the calls of both stages for each

A later chunk begins with the last frames of the one before, pinned; they are shown once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from aiprod_components.calls import (
    DecodeVideo,
    Denoise,
    EncodePicture,
    EncodeTail,
    Guidance,
    Guide,
    LoraUse,
    Pin,
    Refine,
    Sampling,
    Upsample,
)
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import MAX_SEED, TEMPORAL, VideoRequest
from aiprod_components.pipelines.fields import UPSCALES
from aiprod_components.plan import PlanBuilder, Ref
from aiprod_components.values import Latents, PromptEmbeds, VideoShape

DISTILLED = "distilled"  # the LoRA that a family's few steps need


@dataclass(frozen=True)
class Chunk:
    """A part of a video: its number, its first frame, and its own shape."""

    index: int
    start: int
    video: VideoShape

    def name(self, step: str) -> str:
        """A step's name in this chunk."""
        return step if self.index == 0 else f"{step}_{self.index + 1}"

    def shows(self, frame: int) -> bool:
        return self.start <= frame < self.start + self.video.num_frames


@dataclass(frozen=True)
class Given:
    """What a stage is given besides the prompt."""

    pins: tuple[Pin, ...] = ()
    guides: tuple[Guide, ...] = ()


# (steps, chunk, size of the stage's latents, what to append to the names of steps) -> what the stage is given
Giver = Callable[[PlanBuilder, Chunk, VideoShape, str], Given]


@dataclass(frozen=True)
class Stage1:
    """How drafts are made."""

    sampling: Callable[[VideoShape, int], Sampling]  # of a draft's shape and a seed
    loras: tuple[LoraUse, ...]


def distilled_stage1(request: VideoRequest, family: Family) -> Stage1:
    """The family's predefined steps, without guidance, by the LoRA that was distilled for them."""
    if DISTILLED not in family.loras:
        raise InvalidRequestError(
            f"pipeline {request.pipeline} needs a LoRA named {DISTILLED}, which {family.name} has not; "
            "put it into the folder loras of its weights",
            field="pipeline",
        )
    own = (LoraUse(family.lora(DISTILLED).name, 1.0),)
    sigmas = family.sampling.distilled_sigmas
    return Stage1(lambda video, seed: Sampling(sigmas, Guidance(), seed), own + request.loras_of("denoiser", family))


def chunks_of(video: VideoShape, family: Family) -> list[Chunk]:
    """As few as cover the video; each but the first begins with `overlap` frames of the one before."""
    overlap = family.grid.frames_in(family.chaining.overlap)
    chunks: list[Chunk] = []
    start = 0
    while not chunks or chunks[-1].start + chunks[-1].video.num_frames < video.num_frames:
        length = min(family.chaining.window, video.num_frames - start)
        chunks.append(Chunk(len(chunks), start, replace(video, num_frames=length)))
        start += length - overlap
    return chunks


def first_frame(request: VideoRequest) -> Giver:
    """The request's picture, encoded at the stage's size and pinned to the video's first frame."""

    def give(steps: PlanBuilder, chunk: Chunk, video: VideoShape, suffix: str) -> Given:
        if request.image is None or chunk.index > 0:
            return Given()
        latents = steps.add(f"first_frame{suffix}", EncodePicture(request.image.picture, video.height, video.width))
        return Given(pins=(Pin(latents, 0, request.image.strength),))

    return give


def draft_one_stage(
    request: VideoRequest, steps: PlanBuilder, family: Family, *, prompts: list[Ref[PromptEmbeds]], stage1: Stage1, give: Giver
) -> None:
    """Stage 1 at full size, then the video."""
    drafts: list[Ref[Latents]] = []
    for chunk in chunks_of(request.video, family):
        given = _with_tail(steps, chunk, drafts, give(steps, chunk, chunk.video, ""), of="draft", family=family)
        drafts.append(_denoise(request, steps, chunk, prompt=prompts[chunk.index], video=chunk.video, stage1=stage1, given=given))
    _finish(request, steps, family, drafts)


def draft_two_stages(
    request: VideoRequest,
    steps: PlanBuilder,
    family: Family,
    *,
    prompts: list[Ref[PromptEmbeds]],
    stage1: Stage1,
    give: Giver,
    give_again: Giver,
    upscale: float,
) -> None:
    """Drafts at half the size (or what `upscale` says), doubled, refined in a few unguided steps, then the video.

    `give_again` is for stage 2.
    """
    numerator, denominator, network = UPSCALES[upscale]
    if not family.has(network):
        raise InvalidRequestError(f"upscale {upscale:g} needs weights that {family.name} has not; ask for 2", field="upscale")
    drafts: list[Ref[Latents]] = []
    refined: list[Ref[Latents]] = []
    for chunk in chunks_of(request.video, family):
        full = chunk.video
        half = replace(full, height=full.height * denominator // numerator, width=full.width * denominator // numerator)
        given = _with_tail(steps, chunk, drafts, give(steps, chunk, half, "_half"), of="draft", family=family, video=half)
        given_again = _with_tail(steps, chunk, refined, give_again(steps, chunk, full, ""), of="refined", family=family)
        draft = _denoise(request, steps, chunk, prompt=prompts[chunk.index], video=half, stage1=stage1, given=given)
        doubled = steps.add(chunk.name("doubled"), Upsample(draft, full, network))
        sampling = request.refinement(family, seed=_seed(request, chunk))
        refine = Refine(
            prompts[chunk.index], doubled, full, sampling, given_again.pins, given_again.guides, request.loras_of("refiner", family)
        )
        drafts.append(draft)
        refined.append(steps.add(chunk.name("refined"), refine))
    _finish(request, steps, family, refined)


def _denoise(
    request: VideoRequest, steps: PlanBuilder, chunk: Chunk, *, prompt: Ref[PromptEmbeds], video: VideoShape, stage1: Stage1, given: Given
) -> Ref[Latents]:
    sampling = stage1.sampling(video, _seed(request, chunk))
    return steps.add(chunk.name("draft"), Denoise(prompt, video, sampling, given.pins, given.guides, stage1.loras))


def _with_tail(
    steps: PlanBuilder,
    chunk: Chunk,
    before: list[Ref[Latents]],
    given: Given,
    *,
    of: str,
    family: Family,
    video: VideoShape | None = None,
) -> Given:
    """What is given, and from the second chunk on the last frames of the one before."""
    if not before:
        return given
    previous = replace(video or chunk.video, num_frames=family.chaining.window)
    tail = steps.add(chunk.name(f"{of}_tail"), EncodeTail(before[-1], previous, family.chaining.overlap))
    return replace(given, pins=(Pin(tail, 0, 1.0), *given.pins))


def _seed(request: VideoRequest, chunk: Chunk) -> int:
    """Other noise for each chunk."""
    return (request.seed + chunk.index) % (MAX_SEED + 1)


def _finish(request: VideoRequest, steps: PlanBuilder, family: Family, clips: list[Ref[Latents]]) -> None:
    overlap = family.grid.frames_in(family.chaining.overlap) if len(clips) > 1 else 0
    video = request.video
    if request.double_frame_rate:
        doubled = [_doubled(steps, chunk, clip) for chunk, clip in zip(chunks_of(video, family), clips, strict=True)]
        clips, video, overlap = doubled, _twice_as_fast(video), max(2 * overlap - 1, 0)
    steps.add("video", DecodeVideo(tuple(clips), video, overlap, request.output_format))


def _doubled(steps: PlanBuilder, chunk: Chunk, clip: Ref[Latents]) -> Ref[Latents]:
    return steps.add(chunk.name("twice_as_many"), Upsample(clip, _twice_as_fast(chunk.video), TEMPORAL))


def _twice_as_fast(video: VideoShape) -> VideoShape:
    """A frame between each two, in the same time."""
    return replace(video, num_frames=2 * video.num_frames - 1, frame_rate=2 * video.frame_rate)
