"""Dockerfile -> held to hadolint's rules and to our own; no image is built here"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from k8s.constraints import needed, pinned
from tests.graph import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HADOLINT = Path(sys.executable).with_name("hadolint")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lint(text: str) -> str:
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True, check=False, timeout=60).stdout


def instructions(text: str) -> list[str]:
    """Each on one line."""
    return [line for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines() if line.strip()]


def test_hadolint_finds_nothing() -> None:
    assert lint(DOCKERFILE) == ""


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("FROM python:${PYTHON} AS build", "FROM python AS build", "DL3006"),
        ("FROM python:${PYTHON} AS build", "FROM python:latest AS build", "DL3007"),
        ("USER 10001:10001\nEXPOSE", "USER root\nEXPOSE", "DL3002"),
        (" \\\n    && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
        ("gcc=4:12.2.0-3", "gcc", "DL3008"),
        ('CMD ["aiprod", "serve"]', "CMD aiprod serve", "DL3025"),
        ("COPY k8s/drain.sh k8s/drain.sh", "ADD k8s/drain.sh k8s/drain.sh", "DL3020"),
        ("pip install --no-cache-dir --constraint", "pip install --constraint", "DL3042"),
    ],
)
def test_hadolint_finds_what_would_be_wrong(before: str, after: str, rule: str) -> None:
    assert before in DOCKERFILE
    changed = DOCKERFILE.replace(before, after)
    if rule == "DL3042":
        changed = changed.replace("PIP_NO_CACHE_DIR=1 ", "")
    if rule == "DL3002":
        changed = changed[: changed.index("FROM cpu AS gpu")]
    assert rule in lint(changed)


def test_it_takes_nothing_from_an_address() -> None:
    assert [step for step in instructions(DOCKERFILE) if step.startswith("ADD") or "curl" in step or "wget" in step] == []


def test_it_ends_as_nobody_in_every_target() -> None:
    for target in re.split(r"(?m)^FROM ", DOCKERFILE)[2:]:
        users = re.findall(r"(?m)^USER (\S+)$", target)
        assert users[-1] == "10001:10001"


def test_the_base_is_named_exactly_and_is_the_python_of_the_tests() -> None:
    (tag,) = re.findall(r"(?m)^ARG PYTHON=(\S+)$", DOCKERFILE)
    assert re.fullmatch(r"3\.11\.\d+-slim-bookworm", tag) and tag.startswith("{}.{}.".format(*sys.version_info))
    assert {line.split()[1] for line in instructions(DOCKERFILE) if line.startswith("FROM")} == {"python:${PYTHON}", "cpu"}


def test_a_change_of_the_source_installs_no_package_anew() -> None:
    steps = instructions(DOCKERFILE)
    packages = next(number for number, step in enumerate(steps) if "--requirement" in step)
    source = next(number for number, step in enumerate(steps) if step.startswith("COPY deployments"))
    assert packages < source and not any("install" in step and "--no-deps" not in step for step in steps[source:] if "pip" in step)


def test_what_it_copies_is_there_and_may_be_copied() -> None:
    allowed = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [path for step in instructions(DOCKERFILE) if step.startswith("COPY") and "--from" not in step for path in step.split()[1:-1]]
    for path in copied:
        assert (ROOT / path).exists(), path
    assert sorted(copied) == sorted(allowed)


def test_it_asks_for_every_package_of_the_project_and_its_extras() -> None:
    """The very command of the Dockerfile, as a shell reads it."""
    (command,) = [step for step in instructions(DOCKERFILE) if "tomllib" in step]
    (script,) = re.findall(r'python -c "(.*?)"', command)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "EXTRAS": "gpu,ltx2,postgresql,c2pa,telemetry", "PATH": path}
    run = subprocess.run(["sh", "-c", f'python -c "{script}"'], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(each for name in ("gpu", "ltx2", "postgresql", "c2pa", "telemetry") for each in extras[name])]
    assert sorted(run.stdout.splitlines()) == sorted(wanted)


def test_every_package_is_pinned_within_what_the_project_asks_for() -> None:
    pins = pinned()
    assert needed().keys() - pins.keys() == set(), "run `python -m k8s.constraints`"
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *(each for name in ("gpu", "ltx2", "postgresql", "c2pa", "telemetry") for each in extras[name])]:
        requirement = Requirement(text)
        if (name := str(canonicalize_name(requirement.name))) in pins:
            assert requirement.specifier.contains(pins[name]), f"{text}, pinned {pins[name]}"
    assert pins["ray"].rsplit(".", 1)[0] == version("ray").rsplit(".", 1)[0]
