"""`aiprod jobs …` -> a server's videos: shown, watched, fetched, cancelled, or made into others"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aiprod_client.client import Client
from aiprod_client.exits import AsJson, ServerUrl, err, group, print_json, told
from aiprod_client.patience import Retries
from aiprod_client.terminal import facts_table, job_bars, job_facts, jobs_table, times_table
from aiprod_client.video import Content, StageTime, VideoJob


class Order(StrEnum):
    """Which videos come first."""

    NEWEST = "desc"
    OLDEST = "asc"


class Variant(StrEnum):
    """The files of a video."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"
    PREVIEW = "preview"


app = group("jobs", help="The videos of a server: list, show, watch, fetch, cancel, delete, remix and extend them.")

VideoId = Annotated[str, typer.Argument(metavar="ID", help="The video's id, as `aiprod jobs list` shows it.", show_default=False)]
VideoIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Their ids, as `aiprod jobs list` shows them.", show_default=False)]
NewPrompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What the new video shows.", show_default=False)]


@app.command("list")
@told()
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Those that come after this one.")] = None,
    order: Annotated[Order, typer.Option(help="Newest first, or oldest.")] = Order.NEWEST,
    server: ServerUrl = None,
    as_json: AsJson = False,
) -> None:
    """List videos."""
    with _asked(server) as client:
        page = client.list(limit=limit, after=after, order=order.value)
    if as_json:
        print_json({"data": [job.record for job in page.data], "last_id": page.last_id, "has_more": page.has_more})
        return
    Console(soft_wrap=True).print(jobs_table(page.data))
    if page.has_more:
        err.print(f"there are more: --after {page.last_id}", soft_wrap=True)


@app.command()
@told()
def show(video: VideoId, server: ServerUrl = None, as_json: AsJson = False) -> None:
    """Show all that is known of a video."""
    with _asked(server) as client:
        job = client.retrieve(video)
    _print(job, as_json=as_json)


@app.command()
@told()
def watch(
    video: VideoId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Fetch the finished video into this file.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most. [default: as long as it takes]")] = None,
    server: ServerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a video is finished. Ctrl-C ends the waiting alone; exit code 1 tells of one that failed or was cancelled."""
    with Client(server) as client:
        with job_bars(console=err) as shown:
            job = client.wait(video, timeout=timeout, on_change=shown)
        err.print(times_table(StageTime(receipt.step, receipt.stage, receipt.run_seconds) for receipt in job.stages))
        if output is not None:
            _tell_of(client.download(job, output), output)
    if as_json:
        print_json(dict(job.record))


@app.command()
@told()
def cancel(videos: VideoIds, server: ServerUrl = None) -> None:
    """Cancel videos; what runs of them stops within a step."""
    with _asked(server) as client:
        for video in videos:
            err.print(f"{video} is {client.cancel(video).status}", soft_wrap=True)


@app.command()
@told()
def delete(videos: VideoIds, server: ServerUrl = None) -> None:
    """Delete videos and their files; those that are being made are cancelled first."""
    with _asked(server) as client:
        for video in videos:
            client.delete(video)
            err.print(f"{video} is deleted", soft_wrap=True)


@app.command()
@told()
def download(
    video: VideoId,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    variant: Annotated[Variant, typer.Option(help="Which of its files.")] = Variant.VIDEO,
    server: ServerUrl = None,
) -> None:
    """Fetch a finished video; a connection that breaks is taken up where it was."""
    with Client(server) as client:
        _tell_of(client.download(video, output, variant=variant.value), output)


@app.command()
@told()
def remix(video: VideoId, prompt: NewPrompt, server: ServerUrl = None, as_json: AsJson = False) -> None:
    """Ask for a video with the seed and the settings of another one; prints its id."""
    with _asked(server) as client:
        _announce(client.remix(video, prompt), as_json=as_json)


@app.command()
@told()
def extend(
    video: VideoId,
    prompt: NewPrompt,
    seconds: Annotated[float, typer.Option(help="How many seconds more.")],
    server: ServerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a video that begins as another one and goes on; prints its id."""
    with _asked(server) as client:
        _announce(client.extend(video, prompt, seconds), as_json=as_json)


def _asked(server: str | None) -> Client:
    """Somebody waits at the terminal, and can ask again."""
    return Client(server, retries=Retries(most=1))


def _announce(job: VideoJob, *, as_json: bool) -> None:
    err.print(f"{job.status}; follow it with: aiprod jobs watch {job.id}", soft_wrap=True)
    if as_json:
        print_json(dict(job.record))
    else:
        typer.echo(job.id)


def _print(job: VideoJob, *, as_json: bool) -> None:
    if as_json:
        print_json(dict(job.record))
    else:
        Console(soft_wrap=True).print(facts_table(job_facts(job)))


def _tell_of(content: Content, path: Path) -> None:
    err.print(f"{path}: {content.size:,} bytes, {content.media_type}", soft_wrap=True, markup=False)
