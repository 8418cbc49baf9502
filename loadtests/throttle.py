"""a stage and a pace -> its replicas on this machine stopped and let go by turns, so that they get no further than that

What a card that throttles or a neighbour who takes the cores does to a stage, done on purpose: a gate that nothing breaks shows nothing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from aiprod_components.errors import InvalidRequestError

PERIOD = 0.4  # seconds of one stop and go; health checks allow for many times that
REPLICA = "ServeReplica:"


@contextmanager
def throttled(stage: str, *, pace: float) -> Iterator[None]:
    """Within the block the replicas of `stage` (denoiser, or miniature:denoiser) run for `pace` of the time.

    Raises InvalidRequestError where this process has started no such replica.
    """
    replicas = _replicas(stage)
    enough = threading.Event()
    thread = threading.Thread(target=_hold, args=(replicas, pace, enough), daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _replicas(stage: str) -> list[psutil.Process]:
    """Ray names each replica's process `ray::ServeReplica:APPLICATION:STAGE…`."""
    titles = {process: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True) if process.is_running()}
    # While it answers, a dot and the method's name follow; the rest of the old command line is blanked.
    replicas = {process: title.split(REPLICA, 1)[1].split(".")[0].strip() for process, title in titles.items() if REPLICA in title}
    found = [process for process, name in replicas.items() if f":{name}".endswith(f":{stage}")]
    if not found:
        known = ", ".join(sorted(set(replicas.values()))) or "none"
        raise InvalidRequestError(f"throttle: no replica of {stage} was started here; there are {known}", field="throttle")
    return found


def _hold(replicas: list[psutil.Process], pace: float, enough: threading.Event) -> None:
    while not enough.wait(PERIOD * pace):
        _each(replicas, "suspend")
        enough.wait(PERIOD * (1 - pace))
        _each(replicas, "resume")


def _each(replicas: list[psutil.Process], action: str) -> None:
    for process in replicas:
        with suppress(psutil.NoSuchProcess):
            getattr(process, action)()
