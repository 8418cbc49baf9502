"""starting and stopping the graph, with a stand-in for Ray's `serve run`"""

import os
import signal
import socket
import stat
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from aiprod_client import Client, cli, server
from aiprod_client.server import LOOPBACK, Server, ServerError, free_port, running_server
from aiprod_components.errors import ConfigError
from aiprod_components.families import make_family
from deployments.settings import FamilyArgs

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serve_config.yaml"


@pytest.fixture(autouse=True)
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes how it ended."""
    executable = tmp_path / "serve"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} -S {ROOT}/tests/client/serve_stand_in.py "$@"\n')
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(server, "SERVE", executable)
    monkeypatch.delenv("AIPROD_DATA", raising=False)
    monkeypatch.setenv("STAND_IN_NOTE", str(tmp_path / "note"))
    return tmp_path / "note"


def test_the_graph_runs_inside_the_block_and_no_longer(note: Path) -> None:
    with running_server(CONFIG, port=free_port()) as running:
        with Client(running.url) as client:
            assert client.ready()
        assert not note.exists()
    assert note.read_text() == "ended in order"
    assert running.process.returncode == 0


def test_an_error_in_the_block_stops_the_graph_too(note: Path) -> None:
    with pytest.raises(ZeroDivisionError), running_server(CONFIG, port=free_port()):
        _ = 1 / 0
    assert note.read_text() == "ended in order"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_block_and_the_graph(note: Path, number: signal.Signals) -> None:
    def run_until_signalled() -> None:
        with running_server(CONFIG, port=free_port()) as running:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
            running.process.wait()

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run_until_signalled()
    assert note.read_text() == "ended in order"
    assert signal.getsignal(number) is before


def test_the_port_of_the_config_gives_way() -> None:
    port = free_port()
    with running_server(CONFIG, port=port) as running:
        assert running.url == f"http://{LOOPBACK}:{port}"


def test_grpc_has_a_port_of_its_own_where_http_has_another() -> None:
    """Serve would share the config's with a graph that has it, and each would get calls of the other."""
    config_port = yaml.safe_load(CONFIG.read_text())["grpc_options"]["port"]
    with running_server(CONFIG, port=free_port()) as running:
        assert running.grpc not in (None, f"{LOOPBACK}:{config_port}")
    grpc_port = free_port()
    with running_server(CONFIG, port=free_port(), grpc_port=grpc_port) as running:
        assert running.grpc == f"{LOOPBACK}:{grpc_port}"


def test_a_port_of_grpc_that_is_taken_is_said_before_anything_starts(note: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} is taken; .* with --grpc-port"),
            running_server(CONFIG, port=free_port(), grpc_port=port),
        ):
            pass
    assert not note.exists()


def test_the_folder_of_its_videos_is_told_to_the_graph(note: Path, tmp_path: Path) -> None:
    with running_server(CONFIG, port=free_port(), data=tmp_path / "videos"):
        pass
    assert note.read_text() == f"ended in order, with its data in {tmp_path / 'videos'}"


def test_each_family_is_told_with_its_licence() -> None:
    family = make_family("miniature")
    with running_server(CONFIG, port=free_port()) as running:
        assert running.families == (f"miniature: {family.title}; licence: {family.licence}",)


def test_what_is_doubtful_about_a_family_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    make = FamilyArgs.make
    monkeypatch.setattr(FamilyArgs, "make", lambda args: replace(make(args), warning="it says that it is guided"))
    with running_server(CONFIG, port=free_port()) as running:
        assert running.families[0].startswith("miniature: ")
        assert running.families[1:] == ("warning: it says that it is guided",)


def test_each_family_is_made_once_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one of LTX-2 reads the headers of tens of gigabytes."""
    made: list[str] = []
    make = FamilyArgs.make
    monkeypatch.setattr(FamilyArgs, "make", lambda args: made.append(args.name) or make(args))
    with running_server(CONFIG, port=free_port()):
        assert made == ["miniature"]


def test_serve_prints_the_licences(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(wait=lambda: 3)
    running = Server("http://127.0.0.1:8000", None, 1.0, cast(Any, ended), ("ltx2: LTX-2 2.3; licence: its own [terms]",))
    monkeypatch.setattr(cli, "running_server", lambda *_, **__: nullcontext(running))
    result = CliRunner().invoke(cli.app, ["serve"])
    assert result.stderr.splitlines()[:2] == ["ltx2: LTX-2 2.3; licence: its own [terms]", "ready in 1 s: http://127.0.0.1:8000"]


def test_an_application_that_cannot_start_ends_the_wait(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_STATE", "DEPLOY_FAILED")
    with pytest.raises(ServerError, match="application miniature could not start"), running_server(CONFIG, port=free_port()):
        pass
    assert note.exists()


def test_a_graph_that_ends_before_it_is_ready_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_EXIT", "3")
    with pytest.raises(ServerError, match="ended with code 3 before it was ready"), running_server(CONFIG, port=free_port()):
        pass


def test_patience_has_an_end(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_STATE", "DEPLOYING")
    with pytest.raises(ServerError, match="not ready after 3 s"), running_server(CONFIG, port=free_port(), patience=3.0):
        pass


def test_a_port_that_is_taken_is_said_before_anything_starts(note: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"), running_server(CONFIG, port=port):
            pass
    assert not note.exists()


def test_a_config_with_a_misspelt_option_starts_nothing(note: Path, tmp_path: Path) -> None:
    misspelt = tmp_path / "serve_config.yaml"
    misspelt.write_text(CONFIG.read_text().replace("num_replicas", "num_replica", 1))
    with pytest.raises(ConfigError, match="num_replica is not an option"), running_server(misspelt, port=free_port()):
        pass
    assert not note.exists()
