"""a command that takes settings -> the same command with an option for each setting"""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from aiprod_client.settings import Keyframe, VideoSettings
from aiprod_components.errors import InvalidRequestError

# Setting -> the option that gives it. Whatever is left out, the model family decides.
OPTIONS: dict[str, Any] = {
    "pipeline": Annotated[str | None, typer.Option(help="How the video is made; `aiprod plan` shows the steps.")],
    "image": Annotated[Path | None, typer.Option(help="A picture (PNG, JPEG, WebP) that the video begins with.")],
    "image_strength": Annotated[float | None, typer.Option(help="How firmly it begins with the picture: above 0, at most 1 (exactly).")],
    "keyframes": Annotated[
        list[str] | None, typer.Option("--keyframe", metavar="FRAME=FILE", help="A picture that the video shows at this frame; repeat it.")
    ],
    "reference_video": Annotated[Path | None, typer.Option(help="A video (mp4, mov, webm) whose edges the video follows.")],
    "reference_strength": Annotated[float | None, typer.Option(help="How closely: above 0, at most 1.")],
    "sound": Annotated[Path | None, typer.Option(help="A sound (wav, mp3, aac, flac, mp4, webm) that the pictures go with.")],
    "loras": Annotated[
        list[str] | None, typer.Option("--lora", metavar="NAME[=SCALE]", help="A LoRA of the family, and its scale; repeat it.")
    ],
    "size": Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, for example 128x128.")],
    "num_frames": Annotated[int | None, typer.Option("--frames", help="Frames of the video.")],
    "fps": Annotated[float | None, typer.Option(help="Frames per second.")],
    "seed": Annotated[int | None, typer.Option(help="The same seed gives the same frames.")],
    "num_inference_steps": Annotated[int | None, typer.Option("--steps", help="Denoising steps of stage 1.")],
    "guidance_scale": Annotated[float | None, typer.Option(help="How closely to follow the prompt; 1 is no guidance.")],
    "negative_prompt": Annotated[str | None, typer.Option(help="What to steer away from.")],
    "output_format": Annotated[str | None, typer.Option(help="mp4; png or webp of a single frame; m4a or wav of a sound alone.")],
    "more": Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of the API, its value in JSON or as a plain text; repeat it."),
    ],
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
        chosen |= {name: _read(chosen[name], field=name) for name in ("image", "reference_video", "sound")}
        chosen["keyframes"] = tuple(map(_keyframe, chosen["keyframes"] or []))
        chosen["loras"] = _once(map(_lora, chosen["loras"] or []), option="--lora")
        chosen["more"] = _once(map(_other, chosen["more"] or []), option="--set")
        command(**arguments, settings=VideoSettings(**chosen))

    collect.__signature__ = signature.replace(parameters=[*own, *options])  # pyright: ignore[reportAttributeAccessIssue]
    return collect


def _read(file: Path | None, *, field: str) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{field} {file} cannot be read: {error.strerror}", field=field) from error


def _keyframe(text: str) -> Keyframe:
    frame, _, file = text.partition("=")
    if not re.fullmatch(r"\d{1,9}", frame, re.ASCII) or not file:
        raise InvalidRequestError(f"keyframe must be FRAME=FILE, such as 16=middle.png, got {text!r}", field="keyframes")
    picture = _read(Path(file), field="keyframe")
    assert picture is not None
    return Keyframe(picture, int(frame))


def _lora(text: str) -> tuple[str, float]:
    name, _, scale = text.partition("=")
    try:
        return name, float(scale or 1)
    except ValueError as error:
        raise InvalidRequestError(f"lora must be NAME or NAME=SCALE, such as style=0.8, got {text!r}", field="loras") from error


def _once(pairs: Iterable[tuple[str, Any]], *, option: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequestError(f"{option} gives {name} twice; give it once", field=name)
        found[name] = value
    return found


def _other(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequestError(f"--set must be FIELD=VALUE, such as sampler=heun, got {text!r}", field="set")
    if name in ("prompt", "input_reference") or name in OPTIONS:
        raise InvalidRequestError(f"--set {name} is an argument of its own; see --help", field=name)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
