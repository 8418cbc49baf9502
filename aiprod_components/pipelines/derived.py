"""a video's request, a prompt -> the request of another video: carried on, or made anew with other words"""

from typing import Any

from pydantic import ValidationError

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.base import Family
from aiprod_components.pipelines import explain
from aiprod_components.pipelines.base import VideoRequest, check_text


def remix_request(request: VideoRequest, *, prompt: str) -> VideoRequest:
    """The same seed and settings with another prompt, to the end of the video. Raises InvalidRequestError for a prompt that is none."""
    return _changed(request, prompt=prompt, next_prompts=())


def extend_request(request: VideoRequest, *, prompt: str, num_frames: int, family: Family) -> VideoRequest:
    """The request for a longer video: the request's own chunks, whose steps keep their identities, then `num_frames` more of `prompt`.

    So many, or the most below that on the family's grid; they count as the request's own do, before `double_frame_rate`. Raises
    InvalidRequestError when there are none, when the family makes no video of that length, or for a prompt that is none.
    """
    if not request.has_pictures:
        raise InvalidRequestError("a sound alone is not carried on; ask for a longer one with the same seed", field="extends")
    told = remix_request(request, prompt=prompt).prompt
    check_text(told, family=family, field="prompt")
    more, room = num_frames - num_frames % family.grid.time, family.limits.max_frames - request.num_frames
    if not family.grid.time <= more <= room:
        raise InvalidRequestError(_most(room, request=request, family=family) + f", got {num_frames}", field="num_frames")
    longer = {"num_frames": request.num_frames + more, "extends": (*request.extends, request.num_frames), "output_format": "mp4"}
    return _changed(request, **longer, next_prompts=(*request.told(family)[1:], told))


def _most(room: int, *, request: VideoRequest, family: Family) -> str:
    if room < family.grid.time:
        return f"num_frames: a video of {request.num_frames} frames is as long as {family.name} makes one, so none can be added"
    return f"num_frames must be {family.grid.time} to {room} more for a video of {request.num_frames} frames"


def _changed(request: VideoRequest, **fields: Any) -> VideoRequest:
    try:
        return type(request).model_validate({**dict(request), **fields})
    except ValidationError as error:
        raise explain(error, known=list(type(request).model_fields)) from error
