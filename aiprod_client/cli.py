"""a command line -> a video, a plan, a running graph, or a report of this machine

What needs torch or Ray is imported by the command that needs it: help and the server's client answer at once.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from aiprod_client.client import AiprodClientError, Client, GeneratedVideo
from aiprod_client.options import with_settings
from aiprod_client.server import DEFAULT_PORT, LOOPBACK, ROOT, ServerError, running_server
from aiprod_client.settings import VideoSettings
from aiprod_client.terminal import facts_table, plan_table, step_bars, summary, times_table
from aiprod_components.errors import AiprodError, InvalidRequestError

BAD_INPUT, FAILED = 2, 1
FORMATS = ("mp4", "png", "webp")
DEFAULT_SERVER = f"http://{LOOPBACK}:{DEFAULT_PORT}"

app = typer.Typer(
    name="aiprod",
    help="Two-stage video diffusion: prompts to videos, here or on a server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
err = Console(stderr=True, highlight=False)

Prompt = Annotated[str, typer.Argument(help="What the video shows, in any language.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Weights = Annotated[str | None, typer.Option(help="A folder of weights, for a family that ships none; runs in this process.")]
ServerUrl = Annotated[
    str | None, typer.Option("--server", help=f"Whom to ask, and nobody else. [default: $AIPROD_SERVER, or {DEFAULT_SERVER} if it answers]")
]


@contextmanager
def told() -> Iterator[None]:
    """Whatever goes wrong is one line on stderr and an exit code: 2 if asking for something else would help."""
    try:
        yield
    except InvalidRequestError as error:
        _fail(error.message, code=BAD_INPUT)
    except AiprodClientError as error:
        _fail(error.message, code=BAD_INPUT if error.is_bad_input else FAILED)
    except AiprodError as error:
        _fail(error.message, code=FAILED)
    except (ServerError, OSError, ImportError, RuntimeError) as error:
        _fail(str(error), code=FAILED)


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(f"aiprod: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@app.command()
@told()
@with_settings
def generate(
    prompt: Prompt,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: an mp4, or a png or webp of a single frame.")],
    server: ServerUrl = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process even if a server answers.")] = False,
    weights: Weights = None,
    as_json: AsJson = False,
    *,
    settings: VideoSettings,
) -> None:
    """Make a video: on the server if one answers, otherwise in this process."""
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
        _print_json({"output": str(output), "server": chosen, **facts})


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
        _print_json({**described, "seed": asked.request.seed})
    else:
        Console().print(plan_table(described))


@app.command()
@told()
def serve(
    config: Annotated[Path, typer.Option(help="Replicas, GPUs and autoscaling of every stage.")] = ROOT / "serve_config.yaml",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Instead of the port in the config.")] = None,
) -> None:
    """Run the graph on this machine, reachable from this machine alone, until Ctrl-C."""
    with running_server(config, port=port) as server:
        err.print(f"ready in {server.seconds_to_ready:.0f} s: {server.url}")
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
        _print_json(asdict(report))
    else:
        Console().print(facts_table(facts_of(report)))


def _as_named(settings: VideoSettings, output: Path) -> VideoSettings:
    """The format that the file's name says, unless another is asked for."""
    named = output.suffix.removeprefix(".").lower()
    if settings.output_format is not None or not named:
        return settings
    if named not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise InvalidRequestError(f"{output} must end in {endings}, or say --output-format", field="output")
    return replace(settings, output_format=named)


def _print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


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
    with Client(server) as client, err.status("waiting for the video"):
        video = client.generate(prompt, settings)
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
