"""failures so far -> how long to wait before the next try, if there is to be one; and how long anything may take"""

import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

import httpx

from aiprod_client.effects import Flow, Sleep
from aiprod_client.errors import VideoTimeoutError

LONGEST_ADVICE = 120.0  # seconds of Retry-After that are waited for; whoever asks for more is not asked again


@dataclass(frozen=True)
class Retries:
    """How often what fails is tried again (`most`), and the seconds before: twice as long each time, up to `longest_delay`."""

    most: int = 4
    first_delay: float = 0.5
    longest_delay: float = 8.0

    def delay(self, failures: int, answer: httpx.Response | None = None) -> float | None:
        """Seconds until the next try after so many failures in a row, the last of which was `answer` (None: silence); None: give up."""
        if failures > self.most or (answer is not None and not may_pass(answer)):
            return None
        advice = None if answer is None else _retry_after(answer)
        if advice is not None:
            return advice if advice <= LONGEST_ADVICE else None
        # Clients that failed together shall not come back together.
        return min(self.first_delay * 2.0 ** min(failures - 1, 1000), self.longest_delay) * random.uniform(0.75, 1)


DEFAULT_RETRIES, NO_RETRIES = Retries(), Retries(most=0)


def may_pass(answer: httpx.Response) -> bool:
    """Whether a refusal is of the moment, and not of the request."""
    if answer.headers.get("x-should-retry") == "false":
        return False
    return answer.status_code in (408, 429) or answer.status_code >= 500


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds, or the date that the header gives instead; None for neither."""
    advice = answer.headers.get("retry-after", "")
    try:
        return max(float(advice), 0.0)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(advice)
    except ValueError:
        return None
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


@dataclass(frozen=True)
class Deadline:
    """The moment by which a video must be finished."""

    seconds: float = math.inf
    moment: float = math.inf

    @classmethod
    def within(cls, seconds: float | None) -> Self:
        return cls() if seconds is None else cls(seconds, time.monotonic() + seconds)

    def cap(self, seconds: float) -> float:
        """At most as long as is left. Raises VideoTimeoutError when nothing is."""
        left = self.moment - time.monotonic()
        if left <= 0:
            raise VideoTimeoutError(f"the video was not finished in {self.seconds:g} s", code="timeout")
        return min(seconds, left)

    def sleep(self, seconds: float) -> Flow[None]:
        yield Sleep(self.cap(seconds))


NO_DEADLINE = Deadline()
