"""args -> the families that can be made, and why the others cannot: a damaged folder takes down nobody else's"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiprod_components.errors import AiprodError, CheckpointError
from aiprod_components.families.base import Family
from deployments.settings import ApiArgs, FamilyArgs

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Offer:
    """Families by name, and faults by the names of those that there should be besides; `default` is meant where none is named."""

    families: Mapping[str, Family]
    faults: Mapping[str, str]
    default: str

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.families, *self.faults)


def make_offer(args: ApiArgs) -> Offer:
    """Of what is configured. Raises the first one's AiprodError when there is nothing that can be made."""
    families: dict[str, Family] = {}
    errors: dict[str, AiprodError] = {}
    for family in args.families:
        try:
            made = families[family.name] = family.make()
            if made.warning is not None:
                log.warning("model %s: %s", family.name, made.warning)
        except AiprodError as error:
            log.error("model %s cannot be served: %s", family.name, error.message)
            errors[family.name] = error
        except Exception as error:  # whatever one folder brings about, the others are served
            log.exception("model %s cannot be served", family.name)
            why = f"{type(error).__name__}: {error}"
            errors[family.name] = CheckpointError(
                f"model {family.name} cannot be made ({why}); see the server's log, and mend its args or folder"
            )
    if not families:
        raise next(iter(errors.values()))
    faults = {family.name: told(errors[family.name].message, family) for family in args.families if family.name in errors}
    return Offer(families, faults, default=args.families[0].name)


def told(fault: str, family: FamilyArgs) -> str:
    """As clients are told it: they need not know where on the server the folders are."""
    names = {
        spelling: Path(folder).name
        for folder in (family.weights, family.loras, family.prompt_enhancer)
        if folder is not None and Path(folder).name
        # As it is in the args, as paths are printed, and as libraries have it.
        for spelling in (folder.rstrip("/"), str(Path(folder)), str(Path(folder).absolute()))
    }
    for spelling in sorted(names, key=len, reverse=True):
        fault = fault.replace(spelling, names[spelling])
    return fault
