"""what is installed beside this -> constraints.txt: the exact version of every package that the image may need

python -m k8s.constraints

Packages of the extras in the image that are not installed here (xformers) keep the line that they have.
"""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FILE = Path(__file__).parents[1] / "constraints.txt"
EXTRAS = ("gpu", "ltx2", "postgresql", "c2pa", "telemetry")  # that an image may have
NAMED_BY_TORCH = {"triton"}  # exactly, and another version with each of its own
COMMENT = "# Written by `python -m k8s.constraints`: what the tests ran with. triton and nvidia-* are named exactly by torch itself.\n"


def needed(name: str = "aiprod", extras: tuple[str, ...] = EXTRAS) -> dict[str, str | None]:
    """Package -> its installed version, of all that this one needs; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package, _ in _reached(name, extras, seen=set()):
        try:
            found[package] = Version(distribution(package).version).public  # 2.13.0+cpu is 2.13.0 elsewhere
        except PackageNotFoundError:
            found[package] = None
    return {package: version for package, version in found.items() if package not in ({canonicalize_name(name)} | NAMED_BY_TORCH)}


def _reached(name: str, extras: tuple[str, ...], *, seen: set[tuple[str, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    node = (str(canonicalize_name(name)), extras)
    if node in seen:
        return
    seen.add(node)
    yield node
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield from _reached(requirement.name, tuple(sorted(requirement.extras)), seen=seen)


def pinned() -> dict[str, str]:
    """Package -> version, as the file has it."""
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))


def main() -> None:
    before = pinned()
    lines = {package: version or before.get(package) for package, version in needed().items()} | {
        "setuptools": Version(distribution("setuptools").version).public
    }
    if missing := [package for package, version in lines.items() if version is None]:
        raise SystemExit(f"{', '.join(missing)} is neither installed nor in {FILE.name}; add a line NAME==VERSION, then run this again")
    FILE.write_text(COMMENT + "".join(f"{package}=={version}\n" for package, version in sorted(lines.items())), encoding="utf-8")


if __name__ == "__main__":
    main()
