"""plans, progress, jobs, times and facts -> what a person reads in a terminal"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from aiprod_client.video import GeneratedVideo, StageTime, VideoJob

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
# A job's fields that are shown as they are, and those that are times.
PLAIN = (
    *("id", "status", "progress", "queue_position", "model", "pipeline", "prompt", "size", "num_frames", "fps", "seconds", "seed"),
    *("priority", "cost", "remixed_from_video_id", "media_type", "frames_sha256"),
)
TIMES = ("created_at", "completed_at", "expires_at")


class Bar:
    """Draws the progress of one step."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)


@contextmanager
def step_bars(steps: Iterable[tuple[str, str]], *, console: Console) -> Iterator[Callable[[str], Bar]]:
    """A bar for each (step, stage); what this yields starts a step's clock and gives its bar."""
    with Progress(*COLUMNS, console=console) as bars:
        tasks = {step: bars.add_task(_labelled(step, stage), start=False) for step, stage in steps}

        def start(step: str) -> Bar:
            bars.start_task(tasks[step])
            return Bar(bars, tasks[step])

        yield start


@contextmanager
def job_bars(*, console: Console) -> Iterator[Callable[[VideoJob], None]]:
    """A bar for a server's job in percent, and one for each step that it has come to; what this yields is told of every change."""
    with Progress(*COLUMNS, console=console) as bars:
        whole = bars.add_task("asked", total=100)
        tasks: dict[str, TaskID] = {}

        def bar(step: str, stage: str) -> TaskID:
            if step not in tasks:
                tasks[step] = bars.add_task(_labelled(step, stage), total=None)
            return tasks[step]

        def show(job: VideoJob) -> None:
            place = "" if job.queue_position is None else f", position {job.queue_position}"
            bars.update(whole, description=f"{job.id} {job.status}{place}", completed=job.progress)
            for receipt in job.stages:
                task = bar(receipt.step, receipt.stage)
                total = bars.tasks[task].total or 1
                bars.update(task, completed=total, total=total)
            if job.current is not None:
                bars.update(bar(job.current.step, job.current.stage), completed=job.current.done, total=job.current.total or None)

        yield show


def _labelled(step: str, stage: str) -> str:
    return f"{escape(step)} [dim]{escape(stage)}[/dim]"


def jobs_table(jobs: Iterable[VideoJob]) -> Table:
    table = Table("id", "status", "made", "model", "size", "prompt", box=None)
    for job in jobs:
        status = f"{job.status} {job.progress} %" if not job.is_final else job.status
        made = "" if job.created_at is None else moment(job.created_at)
        table.add_row(job.id, status, made, escape(job.model or ""), job.size, escape(job.prompt or ""))
    return table


def job_facts(job: VideoJob) -> list[tuple[str, str]]:
    """All that is known of a job, line by line."""
    asked = (
        "status",
        "progress",
        "queue_position",
        "model",
        "pipeline",
        "prompt",
        "size",
        "num_frames",
        "fps",
        "seconds",
        "seed",
        "priority",
    )
    plain = {name: getattr(job, name) for name in ("id", *asked, "cost", "remixed_from_video_id", "media_type", "frames_sha256")}
    times = {name: getattr(job, name) for name in ("created_at", "completed_at", "expires_at")}
    facts = {name: str(value) for name, value in plain.items() if value is not None}
    facts |= {name: moment(value) for name, value in times.items() if value is not None}
    if job.current is not None:
        facts["current"] = f"{job.current.step} at {job.current.stage}, {job.current.done} of {job.current.total}"
    if job.error is not None:
        facts["error"] = f"{job.error.code}: {job.error.message}"
    return [(name, escape(fact)) for name, fact in facts.items()]


def moment(seconds: float) -> str:
    """A time since 1970, as a clock here shows it."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def models_table(models: Iterable[dict[str, Any]]) -> Table:
    table = Table("model", "pipelines", "size", "frames", "most frames", box=None)
    for model in models:
        defaults, limits = model.get("defaults") or {}, model.get("limits") or {}
        size = f"{defaults['width']}x{defaults['height']}" if {"width", "height"} <= defaults.keys() else ""
        frames = (str(defaults.get("num_frames", "")), str(limits.get("max_frames", "")))
        table.add_row(model["id"], ", ".join(model.get("pipelines") or []), size, *frames)
    return table


def times_table(timings: Iterable[StageTime]) -> Table:
    table = Table("step", "stage", box=None)
    table.add_column("seconds", justify="right")
    for time in timings:
        table.add_row(time.step, time.stage, f"{time.seconds:.2f}")
    return table


def plan_table(described: dict[str, Any]) -> Table:
    """What `describe` says of a plan."""
    table = Table("step", "stage", "inputs", title=f"{described['family']}/{described['pipeline']}", title_justify="left", box=None)
    for number in ("network calls", "tokens", "bytes"):
        table.add_column(number, justify="right")
    for step in described["steps"]:
        work = (f"{step['work'][number]:,}" for number in ("network_calls", "tokens", "output_bytes"))
        table.add_row(step["name"], step["stage"], ", ".join(step["inputs"]), *work)
    return table


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False)
    for name, value in facts:
        table.add_row(name, value)
    return table


def summary(video: GeneratedVideo, *, path: str) -> str:
    return f"{path}: {len(video.data):,} bytes in {video.seconds:.1f} s, pipeline {video.pipeline}, seed {video.seed}"
