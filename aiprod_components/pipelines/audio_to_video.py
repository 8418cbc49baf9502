"""a sound, a prompt -> audio latents, held in both stages -> pictures that go with it -> a video that carries the sound as it is"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from aiprod_components.calls import EncodeSound, ReadSound, SoundPin
from aiprod_components.errors import InvalidMediaError
from aiprod_components.families.base import Family
from aiprod_components.media.sounds import probe_sound
from aiprod_components.pipelines.base import GuidedRequest, rate_said
from aiprod_components.pipelines.chunks import Chunk, Given, Place, Recorder, SoundGiver, Stage1, first_frame
from aiprod_components.pipelines.fields import UPSCALE, UPSCALES, GivenSound, Upscale
from aiprod_components.plan import PlanBuilder, Ref
from aiprod_components.values import AudioLatents, LatentGrid


class AudioToVideo(GuidedRequest, frozen=True):
    """A sound and text (and a first frame) to video: the pictures go with the sound, which stays as it is."""

    needs_sound: ClassVar[bool] = True
    pipeline: Literal["audio_to_video"] = "audio_to_video"
    upscale: Upscale = UPSCALE
    sound: GivenSound = Field(description="The sound.")

    @classmethod
    def usual(cls, record: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """As long as the sound, or as the family makes one; a sound that is too short for a video is refused, not made a still."""
        try:
            seconds = probe_sound(GivenSound.model_validate(record["sound"]).sound)
        except (KeyError, ValidationError):
            return {}
        rate = rate_said(record, otherwise=family.video.frame_rate)
        frames = int(min(seconds, family.limits.max_seconds, family.limits.max_frames / rate) * rate + 1e-6)
        return {"num_frames": family.grid.frames_in(max((frames - 1) // family.grid.time, 1) + 1)}

    @property
    def space_multiple(self) -> int:
        return UPSCALES[self.upscale][0]

    @property
    def taken(self) -> int:
        """Frames that are shown to the sound; those behind them are an extension's, with a sound of its own."""
        return self.extends[0] if self.extends else self.num_frames

    def check(self, family: Family) -> None:
        super().check(family)
        seconds = probe_sound(self.sound.sound)
        most = int(seconds * self.frame_rate + 1e-6) + 1
        if self.taken > most:
            fitting = family.grid.frames_in((most - 1) // family.grid.time + 1)
            raise InvalidMediaError(
                f"sound must last {self.taken / self.frame_rate:.2f} s for num_frames {self.taken} at frame_rate {self.frame_rate:g}, "
                f"got {seconds:.2f} s; ask for num_frames at most {fitting}, or send a longer sound",
                field="sound",
            )

    def record(self, steps: PlanBuilder, family: Family) -> None:
        first = first_frame(self)
        encoded: dict[int, Ref[AudioLatents]] = {}

        def give(steps: PlanBuilder, place: Place) -> Given:
            chunk, given = place.chunk, first(steps, place)
            if chunk.start + chunk.video.num_frames > self.taken:
                return given  # what an extension adds
            if chunk.index not in encoded:
                encoded[chunk.index] = steps.add(chunk.name("heard"), self._encoding(chunk, family.grid))
            count = family.grid.audio_tokens_of(chunk.video)
            return replace(given, sound_pins=(SoundPin(encoded[chunk.index], 0, (0, count)),))

        stage1 = Stage1(self.sampling_of(family, is_draft=True), self.loras_of("denoiser", family), give)
        Recorder(self, steps, family).two_stages(stage1, upscale=self.upscale, give_again=give, sound=self._sound())

    def _encoding(self, chunk: Chunk, grid: LatentGrid) -> EncodeSound:
        start = grid.audio_latent(chunk.start, frame_rate=chunk.video.frame_rate) / grid.audio_rate
        return EncodeSound(self.sound.sound, start, chunk.video)

    def _sound(self) -> SoundGiver | None:
        """The sound as it is; where an extension adds to it, both are decoded as one."""
        return None if self.extends else lambda steps: steps.add("sound", ReadSound(self.sound.sound, self.video))
