"""a plan on handles that are not there -> what is cancelled, and what the caller is told"""

import asyncio
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OwnerDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError, RequestCancelledError

from aiprod_components.errors import AiprodError, CancelledError, InvalidMediaError, StoreUnavailableError, UnavailableError
from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request
from aiprod_components.plan import Plan
from aiprod_components.stages import STAGES
from deployments.keeping import KeptStep
from deployments.orders import Order
from deployments.runner import run_plan, steps_to_run


class Response:
    """What a handle returns, with an outcome that is known."""

    def __init__(self, name: str, outcome: Any) -> None:
        self.name, self.outcome, self.cancelled = name, outcome, False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(60 if self.outcome is None and not self.cancelled else 0).__await__()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Graph:
    """Handles to every stage; all responses end in the same way."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.responses: dict[str, Response] = {}
        self.inputs: dict[str, dict[str, Response]] = {}
        self.handles: Any = {stage: SimpleNamespace(run=SimpleNamespace(remote=self._remote)) for stage in STAGES}

    def _remote(self, order: Order, **inputs: Response) -> Response:
        self.inputs[order.step] = inputs
        self.responses[order.step] = Response(order.step, self.outcome)
        return self.responses[order.step]


def make_plan() -> Plan:
    family = make_family("miniature")
    return parse_request({"prompt": "a red ball"}, family=family).plan(family)


def remote_error(cause: Exception) -> RayTaskError:
    return RayTaskError("run", "traceback", cause, proctitle="ray", pid=1, ip="127.0.0.1")


def test_responses_go_from_step_to_step_and_only_the_last_is_awaited() -> None:
    graph, plan = Graph("a video"), make_plan()
    assert asyncio.run(run_plan(plan, handles=graph.handles)) == "a video"
    for step in plan.steps:
        assert {name: response.name for name, response in graph.inputs[step.name].items()} == {name: name for name in step.inputs}
    assert not any(response.cancelled for response in graph.responses.values())


def test_a_response_that_cannot_be_cancelled_does_not_hide_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Response, "cancel", lambda self: (_ for _ in ()).throw(ACTOR_DIED))
    with pytest.raises(UnavailableError):
        asyncio.run(run_plan(make_plan(), handles=Graph(ACTOR_DIED).handles))


def test_cancelling_the_caller_cancels_every_step() -> None:
    graph = Graph(None)

    async def cancel() -> None:
        task = asyncio.ensure_future(run_plan(make_plan(), handles=graph.handles))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert len(graph.responses) == 5 and all(response.cancelled for response in graph.responses.values())


ACTOR_DIED, OWNER_DIED = ActorDiedError(), OwnerDiedError("0" * 56, None, "")
FAILURES: list[tuple[Exception, type[Exception]]] = [
    (remote_error(InvalidMediaError("input_reference is damaged", field="image")), InvalidMediaError),
    (remote_error(InvalidMediaError("input_reference is damaged", field="image")).as_instanceof_cause(), InvalidMediaError),
    (remote_error(remote_error(ValueError("a bug"))), ValueError),
    (remote_error(StoreUnavailableError("the bucket is away")).as_instanceof_cause(), StoreUnavailableError),
    (ACTOR_DIED, UnavailableError),
    (remote_error(ACTOR_DIED), UnavailableError),
    (OWNER_DIED, UnavailableError),
    (BackPressureError(9, 8), BackPressureError),
    (RequestCancelledError("id"), CancelledError),
]


@pytest.mark.parametrize(("raised", "expected"), FAILURES, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_a_stage_s_failure_comes_out_as_itself_and_the_rest_is_cancelled(raised: Exception, expected: type[Exception]) -> None:
    graph = Graph(raised)
    with pytest.raises(expected) as caught:
        asyncio.run(run_plan(make_plan(), handles=graph.handles))
    assert type(caught.value) is expected
    assert all(response.cancelled for response in graph.responses.values())
    if isinstance(caught.value, AiprodError) and expected is InvalidMediaError:
        assert (caught.value.message, caught.value.field) == ("input_reference is damaged", "image")


def test_what_is_kept_is_handed_on_and_nothing_before_it_runs() -> None:
    graph, plan = Graph("a video"), make_plan()
    kept = {"draft": KeptStep("steps/t/d", "d"), "prompt": KeptStep("steps/t/p", "p")}
    asyncio.run(run_plan(plan, handles=graph.handles, kept=kept))
    assert list(graph.responses) == ["doubled", "refined", "video"]
    assert graph.inputs["doubled"] == {"draft": kept["draft"]} and graph.inputs["refined"]["prompt"] is kept["prompt"]


def test_a_kept_answer_needs_no_step_at_all() -> None:
    plan = make_plan()
    assert steps_to_run(plan, kept=["video"]) == [] and [step.name for step in steps_to_run(plan, kept=[])] == [s.name for s in plan.steps]
    assert [step.name for step in steps_to_run(plan, kept=["refined"])] == ["video"]
