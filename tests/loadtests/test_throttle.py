"""a process that bears a replica's name -> stopped for most of the time, and let go in the end"""

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from aiprod_components.errors import InvalidRequestError
from loadtests.throttle import throttled


@pytest.fixture
def replica() -> Iterator[psutil.Process]:
    """A stage that no graph of other tests has, named as Ray's processes are: what was the command line is blanked."""
    named = [sys.executable, "-c", "import time; time.sleep(60)", "ray::ServeReplica:tried:painter   ", "  "]
    with subprocess.Popen(named) as process:
        yield psutil.Process(process.pid)
        process.kill()


@pytest.mark.parametrize("stage", ["painter", "tried:painter"])
def test_a_stage_is_stopped_for_most_of_the_time_and_then_goes_on(replica: psutil.Process, stage: str) -> None:
    with throttled(stage, pace=0.1):
        seen = [seen_after(replica, seconds=0.02) for _ in range(60)]
    assert seen.count(psutil.STATUS_STOPPED) > len(seen) / 2
    assert replica.status() != psutil.STATUS_STOPPED


def test_a_stage_that_is_not_here_is_named_with_those_that_are(replica: psutil.Process) -> None:
    with (
        pytest.raises(InvalidRequestError, match=r"no replica of sculptor was started here; there are (\S+, )*tried:painter"),
        throttled("sculptor", pace=0.5),
    ):
        pass


def seen_after(process: psutil.Process, *, seconds: float) -> str:
    time.sleep(seconds)
    return process.status()
