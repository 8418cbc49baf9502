"""plans, progress, times and facts -> what a person reads in a terminal"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from aiprod_client.client import GeneratedVideo, StageTime


class Bar:
    """Draws the progress of one step."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)


@contextmanager
def step_bars(steps: Iterable[tuple[str, str]], *, console: Console) -> Iterator[Callable[[str], Bar]]:
    """A bar for each (step, stage); what this yields starts a step's clock and gives its bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {step: bars.add_task(f"{step} [dim]{stage}[/dim]", start=False) for step, stage in steps}

        def start(step: str) -> Bar:
            bars.start_task(tasks[step])
            return Bar(bars, tasks[step])

        yield start


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
