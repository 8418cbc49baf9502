"""family name -> family"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiprod_components.errors import CheckpointError, UnknownModelError
from aiprod_components.families.aiprod import make_aiprod
from aiprod_components.families.base import Family
from aiprod_components.families.ltx2 import make_ltx2
from aiprod_components.families.ltx2_fitting import Fitting
from aiprod_components.families.miniature import make_miniature

FAMILIES: dict[str, Callable[..., Family]] = {"miniature": make_miniature, "aiprod": make_aiprod, "ltx2": make_ltx2}
WITH_VARIANTS = ("ltx2",)


def make_family(
    name: str,
    *,
    weights: str | None = None,
    loras: str | None = None,
    prompt_enhancer: str | None = None,
    watermark: str | None = None,
    variant: str | None = None,
    precision: str | None = None,
    compile: bool | None = None,
    attention: str | None = None,
    offload: str | None = None,
    tiling: str | None = None,
    cache: float | None = None,
) -> Family:
    """`weights` is a folder (None: the family's own), `loras` one with LoRAs besides those that are with the weights (None: no others),
    `prompt_enhancer` one with a language model (None: prompts stay as they are). `watermark` is the name of one (None: no mark).
    `variant` says what a checkpoint is; the others how it is computed, as `Fitting` tells (None: the family's default).

    Raises UnknownModelError naming the families there are, CheckpointError for weights that cannot be served, ConfigError for options
    that are none or do not go together.
    """
    if name not in FAMILIES:
        raise UnknownModelError(f"model family {name!r} is unknown; the families are {', '.join(FAMILIES)}", field="model")
    options = {"precision": precision, "compile": compile, "attention": attention, "offload": offload, "tiling": tiling, "cache": cache}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    named = {} if variant is None else {"variant": variant}
    if (named or given) and name not in WITH_VARIANTS:
        raise CheckpointError(f"family {name} has one form only: leave out {', '.join([*named, *given])}")
    made = FAMILIES[name](weights=weights, **named, **({"fitting": Fitting(**given)} if given else {}))
    return replace(made, lora_folder=_path(loras), prompt_enhancer=_path(prompt_enhancer), watermark=watermark)


def _path(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder)
