"""what live jobs still want of each stage -> a small record in Ray's key-value store -> the controller, which never waits for it

The controller imports this: no torch, no plans.
"""

import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import NamedTuple

from deployments import head_store

log = logging.getLogger("ray.serve")


class Group(NamedTuple):
    """Jobs that still have to go through the same stages: how many, and the seconds of work that they want of each in all."""

    jobs: float
    seconds: Mapping[str, float]


LiveWork = tuple[Group, ...]  # a job is in one group; what nobody's job needs is in none


def to_text(work: LiveWork, *, at: float) -> str:
    groups = [[group.jobs, {stage: round(seconds, 3) for stage, seconds in group.seconds.items()}] for group in work]
    return json.dumps({"at": at, "work": groups})


def from_text(text: str | bytes) -> LiveWork:
    return tuple(Group(jobs, seconds) for jobs, seconds in json.loads(text)["work"])


def _key(family: str) -> str:
    return f"live_work/{family}"


def tell_live_work(family: str, work: LiveWork) -> None:
    """For the controller to find. Asks Ray's head, so not in an event loop."""
    head_store.put(_key(family), to_text(work, at=time.time()))


def fetch_live_work(family: str) -> bytes | None:
    return head_store.get(_key(family))


class _Seen:
    """What a thread has read, and when it last changed by this process' own clock: those of two machines differ."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.latest: tuple[LiveWork, float] | None = None
        self.text: bytes | None = None


class LiveWorkReader:
    """Of one family. A thread reads; `read` answers at once, with None when nothing new was told for too long."""

    def __init__(self, family: str, *, period: float, stale_after: float, fetch: Callable[[str], bytes | None] = fetch_live_work) -> None:
        self._stale_after, self._seen = stale_after, _Seen()
        # The thread holds no reference to the reader, and so ends with it.
        threading.Thread(target=_watch, args=(self._seen, family, period, fetch), name=f"live-work-{family}", daemon=True).start()
        weakref.finalize(self, self._seen.stop.set)

    def read(self) -> LiveWork | None:
        if (latest := self._seen.latest) is None or time.monotonic() - latest[1] > self._stale_after:
            return None
        return latest[0]


def _watch(seen: _Seen, family: str, period: float, fetch: Callable[[str], bytes | None]) -> None:
    is_failing = False
    while not seen.stop.is_set():
        try:
            text = fetch(family)
            if text is not None and text != seen.text:
                seen.latest, seen.text = (from_text(text), time.monotonic()), text
            is_failing = False
        except Exception:
            if not is_failing:  # told once: it is tried again every second
                log.warning("live work of %s cannot be read; meanwhile its stages go by ongoing requests", family, exc_info=True)
            is_failing = True
        seen.stop.wait(period)
