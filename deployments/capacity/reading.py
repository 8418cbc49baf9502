"""a YAML file -> a checked model of it, or the first fault in it: the file, the field, its value and the way out"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from aiprod_components.errors import InvalidRequestError


class Strict(BaseModel):
    """What a file says: nothing that is not asked for, nothing that changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


def read_yaml(path: str | Path, model: type[M]) -> M:
    """Raises InvalidRequestError for a file that is not there, is no YAML, or does not say what `model` needs."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read ({error.strerror}); name a YAML file", field=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is not YAML: {error}", field=str(path)) from error
    return understand(content, model, source=str(path))


def understand(content: Any, model: type[M], *, source: str) -> M:
    """Raises InvalidRequestError naming the source and the first fault in it."""
    if not isinstance(content, Mapping):
        names = ", ".join(model.model_fields)
        raise InvalidRequestError(f"{source} must say {names}; it is {_shown(content)}", field=source)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False)[0], model, source=source) from error


def _explain(fault: ErrorDetails, model: type[BaseModel], *, source: str) -> InvalidRequestError:
    field = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "missing":
        return InvalidRequestError(f"{source}: {field} is missing; say it", field=field)
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known_at(model, fault["loc"][:-1]))
        return InvalidRequestError(f"{source}: {field} is not known here; there is {known}", field=field)
    message = fault["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{source}: {field}: {message}, got {_shown(fault['input'])}", field=field)


def _shown(value: object) -> str:
    from aiprod_components.pipelines import shown  # torch comes with it, which who sends a traffic needs not

    return shown(value)


def _known_at(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """The fields that may be said at a place in a model; tags of a union and places in a list lead nowhere else."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not place:
            return list(model.model_fields)
        if place[0] in model.model_fields:
            return _known_at(model.model_fields[str(place[0])].annotation, place[1:])
        return []
    found = [name for part in get_args(model) for name in _known_at(part, place) or (_known_at(part, place[1:]) if place else [])]
    return list(dict.fromkeys(found))
