"""a request -> tried until it is answered, or until that is hopeless -> the answer"""

import math
from dataclasses import replace
from itertools import count

import httpx

from aiprod_client.answers import refusal
from aiprod_client.effects import Flow, Request, ask
from aiprod_client.errors import NoAnswerError
from aiprod_client.patience import NO_DEADLINE, Deadline, Retries


def send(request: Request, *, retries: Retries, deadline: Deadline = NO_DEADLINE) -> Flow[httpx.Response]:
    """Raises AiprodClientError in the words of the last refusal."""
    for failures in count(1):
        try:
            answer = yield from ask(within(request, deadline))
        except NoAnswerError as lost:
            answer, error = None, lost
        else:
            if answer.is_success:
                return answer
            error = refusal(answer)
        delay = retries.delay(failures, answer) if request.repeatable else None
        if delay is None:
            raise error
        yield from deadline.sleep(delay)
    raise AssertionError("counting has no end")


def within(request: Request, deadline: Deadline) -> Request:
    """The request, given up when its time is over."""
    return replace(request, time_left=deadline.cap(math.inf))
