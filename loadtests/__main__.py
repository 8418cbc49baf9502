"""`python -m loadtests` -> a server of its own, unless a host is named -> locust against it -> docs/loadtest, and the gate's exit code

Options that are not of this module are locust's, or those of loadtests/locustfile.py: `python -m loadtests --slo drafts:p95=5s`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aiprod_client.client import Client
from aiprod_client.errors import AiprodClientError
from aiprod_client.server import ROOT, ServerError, free_port, running_server
from aiprod_client.settings import VideoSettings
from aiprod_components.errors import AiprodError, InvalidRequestError
from deployments.capacity.traffic import Traffic
from loadtests.throttle import throttled
from loadtests.traffic import traffic_named

LOCUSTFILE = ROOT / "loadtests" / "locustfile.py"
# What two idle cores keep by a wide margin, and do not with a stage at a quarter of its pace.
PROMISED = ("p95=15s,errors=1%", "drafts:p95=8s")
PROMISED_SHOWN = " ".join(PROMISED).replace("%", "%%")  # argparse formats what it shows
DEFAULT_TRAFFIC = "miniature-two-minutes"
BAD_INPUT = 2
AFTER_WARMING = 1000  # the first number: the seeds before it are taken
SHOWN_LINES = 30


@dataclass(frozen=True)
class Target:
    """Where requests are sent, and what their numbers begin with."""

    url: str
    grpc: str | None
    first_number: int


def main(arguments: Sequence[str]) -> int:
    options, more = _options(arguments)
    try:
        _settle(options)
    except InvalidRequestError as error:
        _say(str(error))
        return BAD_INPUT
    with tempfile.TemporaryFile() as log:
        try:
            return _run(options, more, log=log)
        except (AiprodError, AiprodClientError, ServerError) as error:
            log.seek(0)
            sys.stderr.writelines(log.read().decode(errors="replace").splitlines(keepends=True)[-SHOWN_LINES:])
            _say(str(error))
            return BAD_INPUT if isinstance(error, InvalidRequestError) else 1


def _run(options: argparse.Namespace, more: Sequence[str], *, log: IO[bytes]) -> int:
    with ExitStack() as stack:
        target = _named(options) if options.host else stack.enter_context(_own_server(options, log=log))
        for stage, pace in options.throttle:
            stack.enter_context(throttled(stage, pace=pace))
        return subprocess.run([*_command(options, target), *more], cwd=ROOT, check=False).returncode


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description="Play a traffic against a server and hold it to a promise.")
    add = parser.add_argument
    add("--host", default=None, metavar="URL", help="the server to test (default: one of its own, stopped afterwards)")
    add("--grpc", default=None, metavar="HOST:PORT", help="where that server speaks gRPC (default: it is not asked)")
    add("--config", type=Path, default=ROOT / "serve_config.yaml", help="of a server of its own")
    add("--traffic", default=DEFAULT_TRAFFIC, help="a YAML file, or one of loadtests/traffic by name")
    add("--face", choices=("http", "grpc", "both"), default=None, help="which of them is asked (default: both, where both are known)")
    add("--slo", action="append", default=None, help=f"what is promised (default, of the default traffic alone: {PROMISED_SHOWN})")
    add("--out", type=Path, default=None, help="the folder of report.html and result.json (default, without --host: docs/loadtest)")
    add("--throttle", action="append", type=_throttle, default=[], metavar="STAGE=PACE", help="slow a stage of this machine on purpose")
    return parser.parse_known_args(arguments)


def _settle(options: argparse.Namespace) -> None:
    """What was not said. Locust runs in another folder, so paths are made whole. Raises InvalidRequestError."""
    is_known = options.grpc is not None or options.host is None
    options.face = options.face or ("both" if is_known else "http")
    if options.face != "http" and not is_known:
        raise InvalidRequestError(f"--face is {options.face}, and of the server only HTTP is known; say --grpc HOST:PORT too", field="grpc")
    if options.out is None and options.host is not None:
        raise InvalidRequestError("--out is missing; name a folder for the report about this server", field="out")
    options.out = (options.out or ROOT / "docs" / "loadtest").absolute()
    if Path(options.traffic).exists():
        options.traffic = str(Path(options.traffic).absolute())


def _throttle(text: str) -> tuple[str, float]:
    stage, _, pace = text.partition("=")
    try:
        if not 0.02 <= float(pace) < 1:
            raise ValueError
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be a stage and its pace, from 0.02 to 1, such as denoiser=0.25") from error
    return stage, float(pace)


def _named(options: argparse.Namespace) -> Target:
    """A server that is there may have made this traffic's videos before, and would only find them."""
    return Target(options.host, options.grpc, int(time.time()) * 1000)


@contextmanager
def _own_server(options: argparse.Namespace, *, log: IO[bytes]) -> Iterator[Target]:
    """On ports and in a folder of its own, and warm."""
    traffic = traffic_named(options.traffic)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(options.config, port=free_port(), data=Path(folder), log=log) as server,
    ):
        _say(f"ready in {server.seconds_to_ready:.0f} s: {server.url}")
        _warm(server.url, traffic)
        yield Target(server.url, server.grpc, AFTER_WARMING)


def _warm(url: str, traffic: Traffic) -> None:
    """One video of each class: the first calls of a process are slower."""
    with Client(url) as client:
        for place, each in enumerate(traffic.classes):
            client.wait(client.create("a red ball, before it begins", VideoSettings(more={**each.request, "seed": place})))


def _command(options: argparse.Namespace, target: Target) -> list[Any]:
    promised = options.slo or (PROMISED if options.traffic == DEFAULT_TRAFFIC else ())
    return [
        *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary", "--host", target.url),
        *("--traffic", options.traffic, "--face", options.face, "--first-number", str(target.first_number)),
        *(() if target.grpc is None else ("--grpc", target.grpc)),
        *(part for promise in promised for part in ("--slo", promise)),
        *("--html", options.out / "report.html", "--result", options.out / "result.json"),
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"load test: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
