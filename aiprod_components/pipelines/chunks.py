"""a video of any length -> chunks of the length that a family was trained on -> the calls of both stages for each

A later chunk begins with the last frames of the one before, pinned; they are shown once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiprod_components.calls import (
    DecodeAudio,
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
    SoundPin,
    Upsample,
)
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import MAX_SEED, TEMPORAL, VideoRequest
from aiprod_components.pipelines.fields import UPSCALES
from aiprod_components.plan import PlanBuilder, Ref
from aiprod_components.values import Latents, PromptEmbeds, VideoShape, Waveform

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
class Place:
    """Where something is given: a stage's latents of a chunk. `suffix` tells the names of a chunk's two stages apart."""

    chunk: Chunk
    video: VideoShape
    suffix: str = ""


@dataclass(frozen=True)
class Given:
    """What a stage is given besides the prompt."""

    pins: tuple[Pin, ...] = ()
    guides: tuple[Guide, ...] = ()
    sound_pins: tuple[SoundPin, ...] = ()


Giver = Callable[[PlanBuilder, Place], Given]
SoundGiver = Callable[[PlanBuilder], Ref[Waveform] | None]


@dataclass(frozen=True)
class Stage1:
    """How drafts are made: sampling by a draft's shape and a seed, LoRAs, and what is given; whether their sound is the video's.

    (Where it is not, that of the refined latents is.)
    """

    sampling: Callable[[VideoShape, int], Sampling]
    loras: tuple[LoraUse, ...]
    give: Giver
    makes_final_sound: bool = True


def distilled_stage1(request: VideoRequest, family: Family, *, give: Giver) -> Stage1:
    """The family's predefined steps, without guidance, by the LoRA that was distilled for them, or by weights that were."""
    if not family.is_distilled and DISTILLED not in family.loras:
        raise InvalidRequestError(
            f"pipeline {request.pipeline} needs a LoRA named {DISTILLED}, which {family.name} has not; "
            "put it into the folder loras of its weights",
            field="pipeline",
        )
    if DISTILLED in [lora.name for lora in request.loras]:
        raise InvalidRequestError(f"loras names {DISTILLED!r}, which is this pipeline's own; leave it out", field="loras")
    own = () if family.is_distilled else (LoraUse(family.lora(DISTILLED).name, 1.0),)
    sigmas = family.sampling.distilled_sigmas
    loras = own + request.loras_of("denoiser", family)
    return Stage1(lambda video, seed: Sampling(sigmas, Guidance(), seed), loras, give, makes_final_sound=False)


def chunks_of(request: VideoRequest, family: Family) -> list[Chunk]:
    """As few as cover the video; each but the first begins with `overlap` frames of the one before."""
    spans = enumerate(request.spans(family))
    return [Chunk(index, start, replace(request.video, num_frames=end - start)) for index, (start, end) in spans]


def first_frame(request: VideoRequest) -> Giver:
    """The request's picture, encoded at the stage's size and pinned to the video's first frame."""

    def give(steps: PlanBuilder, place: Place) -> Given:
        if request.image is None or place.chunk.index > 0:
            return Given()
        encode = EncodePicture(request.image.picture, place.video.height, place.video.width)
        return Given(pins=(Pin(steps.add(f"first_frame{place.suffix}", encode), 0, request.image.strength),))

    return give


class Recorder:
    """Records the calls of a request's chunks, stage by stage."""

    def __init__(self, request: VideoRequest, steps: PlanBuilder, family: Family) -> None:
        self._request, self._steps, self._family = request, steps, family
        self._chunks = chunks_of(request, family)
        self._texts = request.texts(steps, family)
        self._prompts = request.encode_texts(steps, self._texts)

    def one_stage(self, stage1: Stage1, *, sound: SoundGiver | None = None) -> None:
        """Stage 1 at full size, then the video. `sound` gives the video's in place of what is decoded of the latents."""
        drafts: list[Ref[Latents]] = []
        for chunk in self._chunks:
            place = Place(chunk, chunk.video)
            given = self._with_tail(place, drafts, stage1.give(self._steps, place), name="draft_tail")
            drafts.append(self._denoise(place, stage1, given))
        self._finish(drafts, sound=sound or self._decoded(drafts))

    def two_stages(self, stage1: Stage1, *, upscale: float, give_again: Giver, sound: SoundGiver | None = None) -> None:
        """Drafts at half the size (or what `upscale` says), doubled, refined in a few unguided steps, then the video.

        `give_again` is for stage 2; `sound` gives the video's in place of what is decoded of the latents.
        """
        numerator, denominator, network = UPSCALES[upscale]
        self._check_upscale(upscale)
        unguided = self._unguided_prompts()
        drafts: list[Ref[Latents]] = []
        refined: list[Ref[Latents]] = []
        for chunk in self._chunks:
            full = Place(chunk, chunk.video)
            small = Place(chunk, _scaled(chunk.video, denominator, numerator), "_half")
            given = self._with_tail(small, drafts, stage1.give(self._steps, small), name="draft_tail")
            given_again = self._with_tail(full, refined, give_again(self._steps, full), name="refined_tail")
            drafts.append(self._denoise(small, stage1, given))
            doubled = self._steps.add(chunk.name("doubled"), Upsample(drafts[-1], chunk.video, network))
            refined.append(self._refine(chunk, unguided[chunk.index], doubled, given_again))
        self._finish(refined, sound=sound or self._decoded(drafts if stage1.makes_final_sound else refined))

    def _unguided_prompts(self) -> list[Ref[PromptEmbeds]]:
        """As stage 2 reads them, which knows no prompt to steer away from."""
        if self._request.negative is None or not self._family.encodes_alone:
            return self._prompts
        return self._request.encode_texts(self._steps, self._texts, alone=True)

    def _check_upscale(self, upscale: float) -> None:
        numerator, denominator, network = UPSCALES[upscale]
        if upscale != 2 and not self._family.has(network):
            raise InvalidRequestError(f"upscale {upscale:g} needs weights that {self._family.name} has not; ask for 2", field="upscale")
        if numerator > denominator:
            return
        try:
            self._family.limits.check(_scaled(self._request.video, denominator, numerator))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"upscale {upscale:g} makes a draft that cannot be: {error.message}", field="upscale") from error

    def _denoise(self, place: Place, stage1: Stage1, given: Given) -> Ref[Latents]:
        chunk = place.chunk
        sampling = stage1.sampling(place.video, self._seed(chunk))
        call = Denoise(self._prompts[chunk.index], place.video, sampling, given.pins, given.guides, stage1.loras, given.sound_pins)
        return self._steps.add(chunk.name("draft"), call)

    def _refine(self, chunk: Chunk, prompt: Ref[PromptEmbeds], doubled: Ref[Latents], given: Given) -> Ref[Latents]:
        sampling = self._request.refinement(self._family, seed=self._seed(chunk))
        loras = self._request.loras_of("refiner", self._family)
        call = Refine(prompt, doubled, chunk.video, sampling, given.pins, given.guides, loras, given.sound_pins)
        return self._steps.add(chunk.name("refined"), call)

    def _with_tail(self, place: Place, before: list[Ref[Latents]], given: Given, *, name: str) -> Given:
        """What is given, and from the second chunk on the last frames of the one before and the sound that goes with them."""
        if not before:
            return given
        length, again = self._heard[place.chunk.index - 1][0], self._heard[place.chunk.index][1]
        sound = (SoundPin(before[-1], 0, (length - again, length)),) if again else ()
        previous = replace(place.video, num_frames=self._chunks[place.chunk.index - 1].video.num_frames)
        tail = self._steps.add(place.chunk.name(name), EncodeTail(before[-1], previous, self._family.chaining.overlap))
        return replace(given, pins=(Pin(tail, 0, 1.0), *given.pins), sound_pins=(*sound, *given.sound_pins))

    @property
    def _heard(self) -> list[tuple[int, int]]:
        """For each chunk, its audio latents, and how many of them are heard at the end of the one before.

        Chunks begin at the audio latent next to their first frame, so that what is lost by rounding does not add up.
        """
        grid, end = self._family.grid, 0
        found: list[tuple[int, int]] = []
        for chunk in self._chunks:
            start, length = grid.audio_latent(chunk.start, frame_rate=chunk.video.frame_rate), grid.audio_tokens_of(chunk.video)
            found.append((length, max(end - start, 0)))
            end = start + length
        return found

    def _seed(self, chunk: Chunk) -> int:
        """Noise of its own for each chunk, which is no other seed's."""
        if chunk.index == 0:
            return self._request.seed
        digest = hashlib.sha256(f"{self._request.seed}:{chunk.index}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % (MAX_SEED + 1)

    def _decoded(self, clips: list[Ref[Latents]]) -> SoundGiver:
        heard = tuple(again for _, again in self._heard)
        return lambda steps: steps.add("sound", DecodeAudio(tuple(clips), self._request.video, heard))

    def _finish(self, clips: list[Ref[Latents]], *, sound: SoundGiver) -> None:
        family, video = self._family, self._request.video
        overlap = family.grid.frames_in(family.chaining.overlap) if len(clips) > 1 else 0
        is_heard = family.makes_sound and self._request.output_format == "mp4"
        heard = sound(self._steps) if is_heard else None
        if self._request.double_frame_rate:
            clips = [self._doubled(chunk, clip) for chunk, clip in zip(self._chunks, clips, strict=True)]
            video, overlap = _twice_as_fast(video), max(2 * overlap - 1, 0)
        self._steps.add("video", DecodeVideo(tuple(clips), video, overlap, self._request.output_format, heard))

    def _doubled(self, chunk: Chunk, clip: Ref[Latents]) -> Ref[Latents]:
        return self._steps.add(chunk.name("twice_as_many"), Upsample(clip, _twice_as_fast(chunk.video), TEMPORAL))


def _scaled(video: VideoShape, by: int, over: int) -> VideoShape:
    return replace(video, height=video.height * by // over, width=video.width * by // over)


def _twice_as_fast(video: VideoShape) -> VideoShape:
    """A frame between each two, in the same time."""
    return replace(video, num_frames=2 * video.num_frames - 1, frame_rate=2 * video.frame_rate)
