"""the media of one request -> one visit to the sandbox -> pictures, footage and sounds that are known to be such"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from aiprod_components.media.footage import checked_footage, footage_check
from aiprod_components.media.pictures import checked_picture, picture_check
from aiprod_components.media.sandbox import CHECKING, Task, ask
from aiprod_components.media.sounds import checked_sound, sound_check
from aiprod_components.values import Footage, Picture, Sound


@runtime_checkable
class MakeTask(Protocol):
    def __call__(self, data: bytes, *, field: str) -> Task: ...


@dataclass(frozen=True)
class Media:
    """What was sent, by the field that it came in."""

    pictures: dict[str, Picture]
    footage: dict[str, Footage]
    sounds: dict[str, Sound]


def check_media(
    *, pictures: Mapping[str, bytes], footage: Mapping[str, bytes], sounds: Mapping[str, bytes] = MappingProxyType({})
) -> Media:
    """Reads equal bytes once, pictures first. Raises InvalidMediaError for what is no such thing, or too much, alone or together."""
    still, moving, heard = _tasks(pictures, picture_check), _tasks(footage, footage_check), _tasks(sounds, sound_check)
    if not still and not moving and not heard:
        return Media({}, {}, {})
    with ask([*still.values(), *moving.values(), *heard.values()], limits=CHECKING) as answers:
        seen = {data: checked_picture(task, answers) for data, task in still.items()}
        watched = {data: checked_footage(task, answers) for data, task in moving.items()}
        listened = {data: checked_sound(task, answers) for data, task in heard.items()}
    return Media(
        {field: seen[data] for field, data in pictures.items()},
        {field: watched[data] for field, data in footage.items()},
        {field: listened[data] for field, data in sounds.items()},
    )


def _tasks(sent: Mapping[str, bytes], make: MakeTask) -> dict[bytes, Task]:
    """One for each content, under the first field that it came in."""
    tasks: dict[bytes, Task] = {}
    for field, data in sent.items():
        tasks.setdefault(data, make(data, field=field))
    return tasks
