"""serve_config.yaml -> the graph, running on this machine alone -> its URL; and, whatever happens, stopped again"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn

import yaml

from aiprod_client.calls import DEPLOY_FAILED, RUNNING
from aiprod_client.client import Client

if TYPE_CHECKING:
    from aiprod_components.families.base import Family

ROOT = Path(__file__).parents[1]
SERVE = Path(sys.executable).with_name("serve")
LOOPBACK = "127.0.0.1"
DEFAULT_PORT, DEFAULT_GRPC_PORT = 8000, 9000
ENVIRONMENT = {
    # Serve's replicas take pickled calls from each other on a port of every interface: without the token, nobody else's.
    "RAY_AUTH_MODE": "token",
    # In spite of its name: with 0 every address of the cluster is a loopback one, on Linux too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Serve takes gRPC messages of up to two gigabytes before anything of ours sees them.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": "40000000",
    # Serve gives its HTTP proxy three times 5 s to import itself, then gives up for good; a busy machine needs longer.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
# What `serve run` is told to end, and how many seconds it has after each; Serve drains its replicas on the first.
FAREWELLS = ((signal.SIGINT, 60.0), (signal.SIGTERM, 15.0))


class ServerError(Exception):
    """The graph did not start; the message says why."""


@dataclass(frozen=True)
class Server:
    """A graph that is ready; `grpc` is where it speaks gRPC (HOST:PORT), if its config says that it does.

    `families` says of each that is served what it is, its licence, and what is doubtful about it.
    """

    url: str
    grpc: str | None
    seconds_to_ready: float
    process: subprocess.Popen[bytes]
    families: tuple[str, ...]


@contextmanager
def running_server(
    config: Path,
    *,
    port: int | None,
    grpc_port: int | None = None,
    host: str = LOOPBACK,
    patience: float = 600.0,
    log: IO[bytes] | None = None,
    data: Path | None = None,
) -> Iterator[Server]:
    """Runs the graph in a Ray cluster of its own; its output goes to `log` (None: to this process's stderr).

    It listens on `host`, which without API keys may be this machine's own alone. `port` is instead of the config's; gRPC then has
    `grpc_port`, or a free one: Serve would share a port that another graph has.
    `data` is the folder of its jobs and videos, unless the config names one (None: the config's, $AIPROD_DATA, or the user's own).

    Raises ServerError when it does not get ready, and ConfigError when it cannot. SIGTERM ends the block as Ctrl-C does.
    """
    with tempfile.TemporaryDirectory() as folder, interruptible():
        settings, families = _config_for(config, host=host, port=port, grpc_port=grpc_port)
        chosen: int = settings["http_options"]["port"]
        grpc: int | None = settings.get("grpc_options", {}).get("port")
        _check_port(chosen, option="--port")
        if grpc is not None:
            _check_port(grpc, option="--grpc-port")
        path = Path(folder) / "serve_config.yaml"
        path.write_text(yaml.safe_dump(settings))
        process = _start(path, log=log, environment={} if data is None else {"AIPROD_DATA": str(data)})
        try:
            url = f"http://{LOOPBACK}:{chosen}"
            seconds = _wait_until_ready(url, process=process, patience=patience)
            yield Server(url, None if grpc is None else f"{LOOPBACK}:{grpc}", seconds, process, families)
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _config_for(config: Path, *, host: str, port: int | None, grpc_port: int | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config as it is to be run, and what is to be said of its families."""
    if find_spec("ray") is None:
        raise ServerError("ray is not installed; install it with: pip install 'ray[serve]'")
    from deployments.settings import check_reach, read_config  # Ray takes seconds to import, and may not be there

    settings, families = read_config(config)
    check_reach(settings, host=host)
    http, grpc = settings.get("http_options") or {}, settings.get("grpc_options")
    settings = {**settings, "http_options": {**http, "host": host, "port": port or http.get("port", DEFAULT_PORT)}}
    if grpc:
        chosen = grpc_port or (grpc.get("port", DEFAULT_GRPC_PORT) if port is None else free_port())
        settings["grpc_options"] = {**grpc, "port": chosen}
    return settings, tuple(line for family in families for line in _told_of(family))


def _told_of(family: "Family") -> Iterator[str]:
    yield f"{family.name}: {family.title}; licence: {family.licence}"
    if family.warning is not None:
        yield f"warning: {family.warning}"


def _check_port(port: int, *, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ServerError(f"port {port} is taken; stop what listens there, or choose another with {option}") from error


def _start(config: Path, *, log: IO[bytes] | None, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    modules = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [SERVE, "run", "--address", "local", config],  # a cluster of its own, whatever else runs here
        env={**os.environ, **ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": modules, **environment},
        stdin=subprocess.DEVNULL,
        stdout=log or sys.stderr.fileno(),
        stderr=log or sys.stderr.fileno(),
        # A session of its own: Ctrl-C reaches this process alone, which then stops the child in order.
        start_new_session=True,
    )


def _wait_until_ready(url: str, *, process: subprocess.Popen[bytes], patience: float) -> float:
    start = time.monotonic()
    with Client(url) as client:
        while time.monotonic() - start < patience:
            applications = client.applications(timeout=15)
            if set(applications.values()) == {RUNNING}:
                return time.monotonic() - start
            if failed := [name for name, state in applications.items() if state == DEPLOY_FAILED]:
                raise ServerError(f"application {', '.join(failed)} could not start; its log says why")
            if process.poll() is not None:
                raise ServerError(f"the graph ended with code {process.returncode} before it was ready; its log says why")
            time.sleep(0.25)
    raise ServerError(f"the graph was not ready after {patience:.0f} s; its log says why")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for farewell, patience in FAREWELLS:
        if process.poll() is None:
            process.send_signal(farewell)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience)
            break
    # After an orderly end nobody is left; after a crash, Ray's own processes are, and its workers end with them.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end the block with KeyboardInterrupt, even where a shell started this process to ignore them."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
