"""askers -> each asks when it is due, in a greenlet of its own, and waits for nobody -> a row of each

A latency counts from the moment that the request was due: where the sender itself is late, that is part of it and told as `late`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from locust.event import EventHook

from aiprod_client.errors import AiprodClientError, NoAnswerError
from loadtests.faces import Face, note
from loadtests.traffic import Asker

FINAL = ("completed", "failed", "cancelled")
Connect = Callable[[], Face]


class Play:
    """One performance of a traffic. `patience` is how many seconds a video may take."""

    def __init__(self, askers: Sequence[Asker], faces: dict[str, Connect], noted: EventHook, *, patience: float) -> None:
        self.askers, self._faces, self._noted, self._patience = askers, faces, noted, patience
        self.rows: list[dict[str, Any]] = []
        self._begins = 0.0
        self._left = len(askers)
        self._ended = Event()

    @property
    def is_over(self) -> bool:
        return self._left == 0

    def begin(self, *, after: float) -> None:
        """Says from when on arrivals are due."""
        self._begins = time.perf_counter() + after

    def perform(self, persona: str) -> None:
        """Sends a persona's requests, each at its time, and returns when all is over."""
        for asker in self.askers:
            if asker.persona == persona:
                gevent.sleep(max(self._begins + asker.arrival.at - time.perf_counter(), 0.0))
                gevent.spawn(self._ask, asker)
        self._ended.wait()

    def _ask(self, asker: Asker) -> None:
        due = self._begins + asker.arrival.at
        row: dict[str, Any] = {
            "class": asker.arrival.class_name,
            "persona": asker.persona,
            "face": asker.face,
            "at": asker.arrival.at,
            "late": time.perf_counter() - due,
        }
        try:
            self._keep({**row, **self._end_of(asker, due=due), "latency": time.perf_counter() - due})
        finally:
            self._left -= 1
            if self.is_over:
                self._ended.set()

    def _end_of(self, asker: Asker, *, due: float) -> dict[str, Any]:
        try:
            return self._seen_through(asker, due=due)
        except AiprodClientError as error:
            return {"status": "failed", "error": str(error)}

    def _seen_through(self, asker: Asker, *, due: float) -> dict[str, Any]:
        face = self._faces[asker.face]()
        try:
            late = NoAnswerError(f"it was not finished after {self._patience:g} s", code="timeout")
            with gevent.Timeout(max(due + self._patience - time.perf_counter(), 0.0), late):
                return self._watched(face, asker, due=due)
        finally:
            face.close()

    def _watched(self, face: Face, asker: Asker, *, due: float) -> dict[str, Any]:
        """Raises AiprodClientError unless it ends as it should: completed and downloaded, or cancelled by who meant to."""
        after = asker.arrival.cancel_after
        video = face.create(asker.arrival.body)
        change_of_mind = None if after is None else gevent.spawn_later(max(due + after - time.perf_counter(), 0.0), face.cancel, video)
        last: dict[str, Any] = {"status": "unknown"}
        try:
            for last in face.changes(video):
                if last["status"] in FINAL:
                    break
        finally:
            if change_of_mind is not None:
                change_of_mind.kill()
        if last["status"] == "completed":
            size = face.download(video)
            return {"status": "completed", "id": video, "bytes": size, "stages": list(last.get("stages", []))}
        if last["status"] == "cancelled" and after is not None:
            return {"status": "cancelled", "id": video}
        raise AiprodClientError(f"{video} ended as {last['status']}: {last.get('error')}", code="ended")

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        failure = AiprodClientError(row["error"], code="failed") if row["status"] == "failed" else None
        ended = "cancelled" if row["status"] == "cancelled" else "until it is here"
        name = f"{row['class']} ({row['persona']}), {ended}"
        note(self._noted, f"video, {row['face']}", name, seconds=row["latency"], failure=failure, size=row.get("bytes", 0))
