"""family name -> family"""

from collections.abc import Callable

from aiprod_components.errors import UnknownModelError
from aiprod_components.families.aiprod import make_aiprod
from aiprod_components.families.base import Family
from aiprod_components.families.miniature import make_miniature

FAMILIES: dict[str, Callable[..., Family]] = {"miniature": make_miniature, "aiprod": make_aiprod}


def make_family(name: str, *, weights: str | None = None) -> Family:
    """`weights` is a folder (None: the family's own). Raises UnknownModelError naming the families there are."""
    if name not in FAMILIES:
        raise UnknownModelError(f"model family {name!r} is unknown; the families are {', '.join(FAMILIES)}", field="model")
    return FAMILIES[name](weights=weights)
