"""a command line -> a video, a plan, a running graph, or a report of this machine

What needs torch or Ray is imported by the command that needs it: help and the server's client answer at once.
"""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aiprod_client import cli_capacity, cli_convert, cli_jobs, cli_k8s, cli_keys
from aiprod_client.client import Client
from aiprod_client.connecting import DEFAULT_SERVER
from aiprod_client.errors import AiprodClientError
from aiprod_client.exits import AsJson, err, group, print_json, told
from aiprod_client.options import with_settings
from aiprod_client.server import ROOT, ServerError, interruptible, running_server
from aiprod_client.settings import VideoSettings
from aiprod_client.terminal import facts_table, job_bars, models_table, plan_table, step_bars, summary, times_table
from aiprod_client.video import GeneratedVideo
from aiprod_components.errors import InvalidRequestError

FORMATS = ("mp4", "png", "webp", "m4a", "wav")

app = group("aiprod", help="Two-stage video diffusion: prompts to videos, here or on a server.")
app.add_typer(cli_jobs.app)
app.add_typer(cli_keys.keys)
app.add_typer(cli_keys.tenants)
app.command()(cli_convert.convert)
app.add_typer(cli_capacity.capacity)
app.add_typer(cli_keys.webhooks)
app.add_typer(cli_k8s.k8s)

Prompt = Annotated[str, typer.Argument(help="What the video shows, in any language.", show_default=False)]
Weights = Annotated[str | None, typer.Option(help="A folder of weights, for a family that ships none; runs in this process.")]
OnlyServer = Annotated[
    str | None, typer.Option("--server", help=f"Whom to ask, and nobody else. [default: $AIPROD_SERVER, or {DEFAULT_SERVER} if it answers]")
]


@app.command()
@told()
@with_settings
def generate(
    prompt: Prompt,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write: mp4; png, webp of one frame; m4a, wav of a sound."),
    ],
    server: OnlyServer = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process even if a server answers.")] = False,
    weights: Weights = None,
    as_json: AsJson = False,
    *,
    settings: VideoSettings,
) -> None:
    """Make a video: on the server if one answers, otherwise in this process. Ctrl-C cancels it."""
    if not output.parent.is_dir():
        raise InvalidRequestError(f"folder {output.parent} does not exist; make it first", field="output")
    if output.is_dir():
        raise InvalidRequestError(f"{output} is a folder; name a file in it", field="output")
    if server and (local or weights):
        raise InvalidRequestError(f"--server excludes {'--local' if local else '--weights'}; leave one out", field="server")
    settings = _as_named(settings, output)
    chosen = None if local or weights else _choose(server)
    err.print(f"asking {chosen}" if chosen else "running in this process")
    video = _ask(chosen, prompt, settings) if chosen else _run_here(prompt, settings, weights=weights)
    output.write_bytes(video.data)
    err.print(summary(video, path=str(output)), soft_wrap=True, markup=False)
    if as_json:
        facts = {name: value for name, value in asdict(video).items() if name != "data"}
        print_json({"output": str(output), "server": chosen, **facts})


@app.command()
@told()
@with_settings
def plan(prompt: Prompt, as_json: AsJson = False, *, settings: VideoSettings) -> None:
    """Show the steps that a video would take, and their work. Needs no server and no weights."""
    from aiprod_client.inprocess import DEFAULT_FAMILY, NO_WEIGHTS, family_of, understand
    from aiprod_components.plan import describe

    shipped = settings.model is None or settings.model.partition("/")[0] == DEFAULT_FAMILY
    asked = understand(prompt, settings, family=family_of(settings, weights=None if shipped else NO_WEIGHTS))
    described = describe(asked.plan)
    if as_json:
        print_json({**described, "seed": asked.request.seed})
    else:
        Console().print(plan_table(described))


@app.command()
@told()
def models(server: OnlyServer = None, as_json: AsJson = False) -> None:
    """Show the model families: the server's if one answers, otherwise those that run in this process."""
    chosen = _choose(server)
    err.print(f"asking {chosen}" if chosen else "in this process")
    if chosen:
        with Client(chosen) as client:
            found = client.models()
    else:
        from aiprod_client import inprocess

        found = inprocess.models()
    if as_json:
        print_json({"server": chosen, "data": found})
    else:
        Console().print(models_table(found))


@app.command()
@told()
def serve(
    config: Annotated[Path, typer.Option(help="Replicas, GPUs and autoscaling of every stage.")] = ROOT / "serve_config.yaml",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Instead of the port in the config.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; another than this machine's own needs keys: true.")] = "127.0.0.1",
    grpc_port: Annotated[int | None, typer.Option(min=1, max=65535, help="That of gRPC. [default: the config's; with --port, any]")] = None,
) -> None:
    """Run the graph on this machine, reachable from this machine alone, until Ctrl-C."""
    with running_server(config, port=port, grpc_port=grpc_port, host=host) as server:
        faces = server.url if server.grpc is None else f"{server.url}, gRPC at {server.grpc}"
        for family in server.families:
            err.print(family, soft_wrap=True, markup=False)
        err.print(f"ready in {server.seconds_to_ready:.0f} s: {faces}")
        try:
            code = server.process.wait()
        except KeyboardInterrupt:
            err.print("stopping")
            return
        raise ServerError(f"the graph ended by itself with code {code}")


@app.command()
@told()
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has of what AIPROD uses."""
    from aiprod_client.doctor import examine, facts_of

    report = examine()
    if as_json:
        print_json(asdict(report))
    else:
        Console().print(facts_table(facts_of(report)))


@app.command()
def demo() -> None:
    """Start the graph, make demo.mp4 over HTTP, stop the graph."""
    from aiprod_client.demo import main

    raise typer.Exit(main())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Run a training recipe; it resumes where it stopped. `aiprod train --help` shows its own options."""
    command = [sys.executable, "-m", "aiprod_components.training", *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def _as_named(settings: VideoSettings, output: Path) -> VideoSettings:
    """The format that the file's name says, unless another is asked for."""
    named = output.suffix.removeprefix(".").lower()
    if settings.output_format is not None or not named:
        return settings
    if named not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise InvalidRequestError(f"{output} must end in {endings}, or say --output-format", field="output")
    return replace(settings, output_format=named)


def _choose(named: str | None) -> str | None:
    """The server to ask, None for nobody. One that is named on the command line must be there; others need not."""
    server = named or os.environ.get("AIPROD_SERVER") or DEFAULT_SERVER
    with Client(server) as client:
        if client.ready():
            return server
    if named:
        raise AiprodClientError(f"no AIPROD server is ready at {server}; start one with `aiprod serve`, or use --local", code="unreachable")
    return None


def _ask(server: str, prompt: str, settings: VideoSettings) -> GeneratedVideo:
    # Whoever ends this process, and not only Ctrl-C, cancels the video.
    try:
        with interruptible(), Client(server) as client, job_bars(console=err) as show:
            video = client.generate(prompt, settings, on_change=show)
    except KeyboardInterrupt:
        err.print("stopped; the server was told to cancel the video")
        raise
    err.print(times_table(video.timings))
    return video


def _run_here(prompt: str, settings: VideoSettings, *, weights: str | None) -> GeneratedVideo:
    with err.status("loading"):
        from aiprod_client import inprocess

        family = inprocess.family_of(settings, weights=weights)
        asked = inprocess.understand(prompt, settings, family=family)
        stages = inprocess.load_stages(family, plan=asked.plan)
    with step_bars([(step.name, step.call.stage) for step in asked.plan.steps], console=err) as start:
        return inprocess.generate(asked.request, plan=asked.plan, stages=stages, watch=lambda step: start(step.name))
