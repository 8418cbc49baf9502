"""what a call has to do -> effects, one after the other, for whoever performs them

A flow is a generator that yields effects and is sent their results. So a call is written once, retries and reconnections included, and
`client.py` and `async_client.py` perform it, each in its own way.
"""

import inspect
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args

import httpx

from aiprod_client.errors import NoAnswerError

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """An HTTP request. `repeatable`: sending it twice does what sending it once does.

    `timeout` is in place of the client's, in seconds; neither counts for longer than the `time_left`.
    """

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    repeatable: bool = True
    timeout: float | None = None
    time_left: float = math.inf


@dataclass(frozen=True)
class Ask:
    """Send a request -> its whole answer. NoAnswerError is thrown into the flow; so it is by Open and Read."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request -> its answer without the body, which is then read; one that was opened before is closed. Redirects are followed."""

    request: Request


@dataclass(frozen=True)
class Read:
    """-> the next bytes of the open answer, None at its end; NoAnswerError if none come within `timeout` seconds."""

    timeout: float = math.inf


@dataclass(frozen=True)
class Close:
    """Close the open answer."""


@dataclass(frozen=True)
class Sleep:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Do something that takes a while on this machine -> its result."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Tell:
    """Call the caller's own function; the async client awaits what it returns."""

    function: Callable[[Any], object]
    value: Any


@dataclass(frozen=True)
class Emit:
    """Hand a value to whoever iterates."""

    value: Any


@dataclass(frozen=True)
class OnLeaving:
    """From now on, perform `flow` if this one is left before its end: by Ctrl-C, a cancelled task, an error in the caller's function."""

    flow: Generator[Any, Any, None] | None


Effect = Ask | Open | Read | Close | Sleep | Work | Tell | Emit | OnLeaving
Flow = Generator[Effect, Any, T]


def ask(request: Request) -> Flow[httpx.Response]:
    return (yield Ask(request))


def open_answer(request: Request) -> Flow[httpx.Response]:
    return (yield Open(request))


def read(*, timeout: float = math.inf) -> Flow[bytes | None]:
    return (yield Read(timeout))


def signature_of(call: Callable[..., Flow[Any]]) -> inspect.Signature:
    """As whoever has the call performed sees it: it returns what its flow does."""
    signature = inspect.signature(call)
    _, _, outcome = get_args(signature.return_annotation)
    return signature.replace(return_annotation=outcome)


@dataclass(frozen=True)
class Ended(Generic[T]):
    """What a flow returned."""

    value: T


class Course(Generic[T]):
    """A flow under way: gives its effects and takes their results."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self._parting: Flow[None] | None = None
        self._result: Any = None
        self._error: NoAnswerError | None = None

    def go_on(self) -> Effect | Ended[T]:
        """The next effect to perform. Raises what the flow raises."""
        result, error = self._result, self._error
        self._result = self._error = None
        try:
            effect = self._flow.send(result) if error is None else self._flow.throw(error)
        except StopIteration as end:
            return Ended(end.value)
        if isinstance(effect, OnLeaving):
            self._parting = effect.flow
            return self.go_on()
        return effect

    def take(self, result: Any) -> None:
        self._result = result

    def fail(self, error: NoAnswerError) -> None:
        self._error = error

    def leave(self) -> Flow[None] | None:
        """Ends the flow -> what is to be performed because it was under way."""
        was_under_way = inspect.getgeneratorstate(self._flow) != inspect.GEN_CLOSED
        self._flow.close()
        return self._parting if was_under_way else None
