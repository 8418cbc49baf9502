"""a command that takes settings -> the same command with an option for each setting"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from aiprod_client.settings import VideoSettings
from aiprod_components.errors import InvalidRequestError

# Setting -> the option that gives it. Whatever is left out, the model family decides.
OPTIONS: dict[str, Any] = {
    "pipeline": Annotated[str | None, typer.Option(help="How the video is made; `aiprod plan` shows the steps.")],
    "image": Annotated[Path | None, typer.Option(help="A picture (PNG, JPEG, WebP) that the video begins with.")],
    "image_strength": Annotated[float | None, typer.Option(help="How firmly it begins with the picture: above 0, at most 1 (exactly).")],
    "size": Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, for example 128x128.")],
    "num_frames": Annotated[int | None, typer.Option("--frames", help="Frames of the video.")],
    "fps": Annotated[float | None, typer.Option(help="Frames per second.")],
    "seed": Annotated[int | None, typer.Option(help="The same seed gives the same frames.")],
    "num_inference_steps": Annotated[int | None, typer.Option("--steps", help="Denoising steps of stage 1.")],
    "guidance_scale": Annotated[float | None, typer.Option(help="How closely to follow the prompt; 1 is no guidance.")],
    "negative_prompt": Annotated[str | None, typer.Option(help="What to steer away from.")],
    "model": Annotated[str | None, typer.Option(help="A model family, or FAMILY/PIPELINE.")],
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `settings` by the options."""
    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
    options = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option) for name, option in OPTIONS.items()]

    @functools.wraps(command)
    def collect(**arguments: Any) -> None:
        chosen: dict[str, Any] = {name: arguments.pop(name) for name in OPTIONS}
        chosen["image"] = _read(chosen["image"])
        command(**arguments, settings=VideoSettings(**chosen))

    collect.__signature__ = signature.replace(parameters=[*own, *options])  # pyright: ignore[reportAttributeAccessIssue]
    return collect


def _read(picture: Path | None) -> bytes | None:
    try:
        return None if picture is None else picture.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"image {picture} cannot be read: {error.strerror}", field="image") from error
