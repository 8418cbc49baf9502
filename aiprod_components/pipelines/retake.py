"""a video, a span of time, a prompt -> its latents, held outside of the span -> the video with the span made anew"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, ValidationError

from aiprod_components.calls import EncodeFootage, EncodeSound, Pin, ReadSound, SoundPin
from aiprod_components.errors import InvalidMediaError, InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.media.footage import check_aspect, check_length, probe_footage
from aiprod_components.pipelines.base import GuidedRequest, rate_said
from aiprod_components.pipelines.chunks import Chunk, Given, Place, Recorder, SoundGiver, Stage1, first_frame
from aiprod_components.pipelines.fields import Reference
from aiprod_components.plan import PlanBuilder
from aiprod_components.values import FootageShape, LatentGrid


class Retake(GuidedRequest, frozen=True):
    """A span of a video made anew, in one stage at the video's size; what lies outside of it stays."""

    pipeline: Literal["retake"] = "retake"
    reference_video: Reference = Field(description="The video; strength is how firmly what lies outside of the span is held.")
    from_seconds: float = Field(ge=0, allow_inf_nan=False, description="Where the span begins: at the latent frame that shows this moment.")
    to_seconds: float = Field(gt=0, allow_inf_nan=False, description="Where it ends: with the latent frame that shows this moment.")
    keep_sound: bool = Field(default=False, description="Leave the video's sound as it is in the span, too.")

    @classmethod
    def usual(cls, record: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """The size, rate and length of the video, as near as the family comes to them."""
        try:
            shape = probe_footage(Reference.model_validate(record["reference_video"]).footage)
        except (KeyError, ValidationError):
            return {}
        rate = rate_said(record, otherwise=min(max(shape.frame_rate, 1.0), 120.0))
        frames = min(int(shape.seconds * rate + 1e-6), family.limits.max_frames)
        return {
            "frame_rate": rate,
            "num_frames": family.grid.frames_in(max(frames - 1, 0) // family.grid.time + 1),
            "height": _on_grid(shape.height, family.grid),
            "width": _on_grid(shape.width, family.grid),
        }

    @property
    def space_multiple(self) -> int:
        return 1

    @property
    def components(self) -> tuple[str, ...]:
        return ("denoiser",)

    @property
    def taken(self) -> int:
        """Frames that are taken of the video; those behind them are an extension's."""
        return self.extends[0] if self.extends else self.num_frames

    @property
    def span(self) -> tuple[int, int]:
        """The first frame that is made anew, and the first behind those."""
        begin, end = self.from_seconds * self.frame_rate, self.to_seconds * self.frame_rate
        return math.floor(begin + 1e-6), min(math.ceil(end - 1e-6), self.taken)

    def check(self, family: Family) -> None:
        super().check(family)
        shape = probe_footage(self.reference_video.footage)
        check_aspect(shape, height=self.height, width=self.width, field="reference_video")
        check_length(shape, num_frames=self.taken, frame_rate=self.frame_rate, field="reference_video")
        length, (begin, end) = self.taken / self.frame_rate, self.span
        if self.to_seconds > max(length, shape.seconds) + 1e-6:
            raise InvalidRequestError(
                f"to_seconds must be at most {length:.4g}, the end of the video, got {self.to_seconds:g}", field="to_seconds"
            )
        if begin >= end:
            raise InvalidRequestError(
                f"from_seconds must be less than to_seconds and than {length:.4g}, the end of the video, got {self.from_seconds:g} and "
                f"{self.to_seconds:g}",
                field="from_seconds",
            )
        if self.image is not None and begin > 0:
            raise InvalidRequestError(
                f"image is for the first frame, which stays as it is where from_seconds is {self.from_seconds:g}; leave it out",
                field="image",
            )
        self._check_kept_sound(shape, family)

    def _check_kept_sound(self, shape: FootageShape, family: Family) -> None:
        if self.keep_sound and not family.makes_sound:
            raise InvalidRequestError(f"keep_sound is for sound, and {family.name} makes none; leave it out", field="keep_sound")
        if self.keep_sound and not shape.sound_seconds:
            raise InvalidMediaError("keep_sound needs a sound to keep, and reference_video has none; leave it out", field="keep_sound")

    def record(self, steps: PlanBuilder, family: Family) -> None:
        first = first_frame(self)
        is_heard = family.makes_sound and probe_footage(self.reference_video.footage).sound_seconds > 0

        def give(steps: PlanBuilder, place: Place) -> Given:
            given = first(steps, place)
            if place.chunk.start + place.video.num_frames > self.taken:
                return given  # what an extension adds
            pins = (*given.pins, *self._pins(steps, place.chunk, family.grid))
            return replace(given, pins=pins, sound_pins=self._sound_pins(steps, place.chunk, family.grid) if is_heard else ())

        stage1 = Stage1(self.sampling_of(family, is_draft=False), self.loras_of("denoiser", family), give)
        Recorder(self, steps, family).one_stage(stage1, sound=self._sound(is_heard=is_heard))

    def _sound(self, *, is_heard: bool) -> SoundGiver | None:
        """A silent video stays silent; a sound that is kept is heard as it is."""
        if not is_heard:
            return lambda steps: None
        if not self.keep_sound or self.extends:
            return None
        return lambda steps: steps.add("sound", ReadSound(self.reference_video.footage, self.video))

    def _pins(self, steps: PlanBuilder, chunk: Chunk, grid: LatentGrid) -> tuple[Pin, ...]:
        source = steps.add(chunk.name("source"), EncodeFootage(self.reference_video.footage, chunk.start, chunk.video, None))
        strength, (first, behind) = self.reference_video.strength, self._made_anew(chunk, grid)
        count = grid.shape_of(chunk.video)[1]
        before = Pin(source, 0, strength, (0, first))
        after = Pin(source, grid.frames_in(behind) if behind else 0, strength, (behind, count))
        return tuple(pin for pin in (before, after) if pin.part is not None and pin.part[0] < pin.part[1])

    def _made_anew(self, chunk: Chunk, grid: LatentGrid) -> tuple[int, int]:
        """The latent frames of a chunk that show something of the span, the first and the one behind the last."""
        begin, end = (min(max(frame - chunk.start, 0), chunk.video.num_frames) for frame in self.span)
        return (grid.latent_frame(begin), grid.latent_frame(end - 1) + 1) if begin < end else (0, 0)

    def _sound_pins(self, steps: PlanBuilder, chunk: Chunk, grid: LatentGrid) -> tuple[SoundPin, ...]:
        rate, count = chunk.video.frame_rate, grid.audio_tokens_of(chunk.video)
        start = grid.audio_latent(chunk.start, frame_rate=rate) / grid.audio_rate
        source = steps.add(chunk.name("source_sound"), EncodeSound(self.reference_video.footage, start, chunk.video))
        first, behind = self._sounded_anew(chunk, grid)
        parts = ((0, first), (behind, count))
        return tuple(SoundPin(source, part[0], part, self.reference_video.strength) for part in parts if part[0] < part[1])

    def _sounded_anew(self, chunk: Chunk, grid: LatentGrid) -> tuple[int, int]:
        """The audio latents that are heard while those latent frames are shown."""
        rate, count = chunk.video.frame_rate, grid.audio_tokens_of(chunk.video)
        first, behind = self._made_anew(chunk, grid)
        if self.keep_sound or first == behind:
            return 0, 0
        begin = grid.frames_in(first) / rate if first else 0.0
        end = grid.frames_in(behind) / rate
        return math.floor(begin * grid.audio_rate), min(math.ceil(end * grid.audio_rate) + 1, count)


def _on_grid(side: int, grid: LatentGrid) -> int:
    return max(round(side / grid.space), 1) * grid.space
