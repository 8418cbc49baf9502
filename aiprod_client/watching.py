"""a video's id -> every state that it goes through: from the event stream, again and again if it breaks, or by polling if there is none"""

import math
from collections.abc import Callable
from dataclasses import replace

import httpx

from aiprod_client import routes
from aiprod_client.answers import read_video
from aiprod_client.effects import Close, Flow, open_answer, read
from aiprod_client.errors import NoAnswerError
from aiprod_client.event_stream import EventStream
from aiprod_client.patience import NO_DEADLINE, Deadline, Retries
from aiprod_client.sending import send, within
from aiprod_client.video import Event, VideoEvent, VideoJob

SILENCE_SECONDS = 45.0  # after which a stream is held to be dead; a live one says something every 15
POLL_SECONDS = 1.0
SHORTEST_POLL, LONGEST_POLL = 0.1, 60.0

Teller = Callable[[Event], Flow[None]]


class _Watch:
    """Tells of each state once, however often it is heard of."""

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self.last: VideoJob | None = None

    @property
    def is_over(self) -> bool:
        return self.last is not None and self.last.is_final

    def hear(self, event: Event) -> Flow[None]:
        if isinstance(event, VideoEvent):
            if event.job == self.last:
                return
            self.last = event.job
        yield from self._tell(event)


def follow(video: str | VideoJob, *, tell: Teller, retries: Retries, deadline: Deadline = NO_DEADLINE) -> Flow[VideoJob]:
    """The video's final state. Raises VideoTimeoutError, or AiprodClientError when the server does not answer at all."""
    watch, failures = _Watch(tell), 0
    while True:
        before = watch.last
        refused = yield from _listen(video, watch, deadline=deadline)
        failures = 0 if watch.last != before else failures + 1
        delay = retries.delay(failures, refused)
        if watch.is_over or delay is None:
            break
        yield from deadline.sleep(delay)
    while watch.last is None or not watch.last.is_final:
        answer = yield from send(routes.retrieve(video), retries=retries, deadline=deadline)
        yield from watch.hear(VideoEvent(read_video(answer)))
        if not watch.is_over:
            yield from deadline.sleep(_poll_seconds(answer))
    return watch.last


def _listen(video: str | VideoJob, watch: _Watch, *, deadline: Deadline) -> Flow[httpx.Response | None]:
    """Until the stream ends, breaks, or has told all -> the answer, if it was no stream."""
    events, refused = EventStream(), None
    try:
        answer = yield from open_answer(within(replace(routes.events(video), timeout=SILENCE_SECONDS), deadline))
        if answer.is_error or not answer.headers.get("content-type", "").startswith("text/event-stream"):
            refused = answer
        while refused is None and not watch.is_over and (chunk := (yield from read(timeout=deadline.cap(math.inf)))) is not None:
            for event in events.feed(chunk):
                yield from watch.hear(event)
    except NoAnswerError:
        pass  # Whoever calls sees what has been told, and tries again.
    yield Close()
    return refused


def _poll_seconds(answer: httpx.Response) -> float:
    """As often as the server wants to be asked."""
    try:
        asked = int(answer.headers["openai-poll-after-ms"]) / 1000
    except (KeyError, ValueError):
        return POLL_SECONDS
    return min(max(asked, SHORTEST_POLL), LONGEST_POLL)
