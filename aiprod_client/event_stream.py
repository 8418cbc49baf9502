"""bytes of a text/event-stream, however they were cut -> the server's events, each as soon as it is whole"""

import re
from collections.abc import Iterator

from aiprod_client.answers import event_of
from aiprod_client.video import Event

# A carriage return at the very end may be half of a line's end.
_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)


class EventStream:
    """One connection's worth: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Raises AiprodClientError for an event that says nothing."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._note(line.decode(errors="replace"))
            elif event := self._dispatch():
                yield event

    def _note(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._kind = value
        elif field == "data":
            self._data.append(value)

    def _dispatch(self) -> Event | None:
        kind, data = self._kind, "\n".join(self._data)
        self._kind, self._data = "", []
        return event_of(kind, data) if data else None
