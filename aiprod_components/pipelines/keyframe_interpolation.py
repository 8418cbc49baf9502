"""pictures, each with its frame number, and a prompt -> both stages look at them -> a video that shows them there"""

from dataclasses import replace
from functools import partial
from typing import Literal

from pydantic import Field

from aiprod_components.calls import EncodePicture, Guide, Pin
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines.base import GuidedRequest
from aiprod_components.pipelines.chunks import Given, Place, Recorder, Stage1
from aiprod_components.pipelines.fields import UPSCALE, UPSCALES, Keyframe, Upscale
from aiprod_components.plan import PlanBuilder, Ref
from aiprod_components.values import Latents, Picture

MOST_KEYFRAMES = 16


class KeyframeInterpolation(GuidedRequest, frozen=True):
    """Pictures pinned to frames anywhere in the video, in two stages; the model makes up what lies between."""

    pipeline: Literal["keyframe_interpolation"] = "keyframe_interpolation"
    upscale: Upscale = UPSCALE
    keyframes: tuple[Keyframe, ...] = Field(
        min_length=1, max_length=MOST_KEYFRAMES, description="Pictures and the frames at which they are shown."
    )

    @property
    def space_multiple(self) -> int:
        return UPSCALES[self.upscale][0]

    def check(self, family: Family) -> None:
        super().check(family)
        numbers = [keyframe.frame for keyframe in self.keyframes] + ([0] if self.image is not None else [])
        for number in numbers:
            if number >= self.num_frames:
                raise InvalidRequestError(
                    f"keyframes: frame must be 0 to {self.num_frames - 1} in a video of {self.num_frames} frames, got {number}",
                    field="keyframes",
                )
            if numbers.count(number) > 1:
                raise InvalidRequestError(f"keyframes: two pictures are for frame {number}; give each its own frame", field="keyframes")

    def record(self, steps: PlanBuilder, family: Family) -> None:
        give = partial(self._give, antialias=family.antialiases_keyframes)
        stage1 = Stage1(self.sampling_of(family, is_draft=True), self.loras_of("denoiser", family), give)
        Recorder(self, steps, family).two_stages(stage1, upscale=self.upscale, give_again=give)

    def _give(self, steps: PlanBuilder, place: Place, *, antialias: bool) -> Given:
        """The first frame's picture is pinned: a clip's first latent frame is a single frame. All others are guides beside the latents."""
        chunk, video, given = place.chunk, place.video, Given()
        encoded: dict[Picture, Ref[Latents]] = {}
        for number, keyframe in enumerate(self._pictures(), start=1):
            if not chunk.shows(keyframe.frame):
                continue
            name = chunk.name(f"keyframe{place.suffix}_{number}")
            if keyframe.picture not in encoded:
                call = EncodePicture(keyframe.picture, video.height, video.width, antialias)
                encoded[keyframe.picture] = steps.add(name, call)
            latents = encoded[keyframe.picture]
            frame = keyframe.frame - chunk.start
            if frame == 0 and chunk.index == 0:
                given = replace(given, pins=(*given.pins, Pin(latents, 0, keyframe.strength)))
            else:
                guide = Guide(latents, replace(video, num_frames=1), frame, keyframe.strength)
                given = replace(given, guides=(*given.guides, guide))
        return given

    def _pictures(self) -> list[Keyframe]:
        """In the order of their frames; `image` is one of frame 0."""
        first = [] if self.image is None else [Keyframe(picture=self.image.picture, frame=0, strength=self.image.strength)]
        return sorted([*first, *self.keyframes], key=lambda keyframe: keyframe.frame)
