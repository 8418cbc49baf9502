"""plan -> calls along its edges -> the last result, sealed; what lies between goes from replica to replica"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from aiprod_components.errors import CancelledError, UnavailableError
from aiprod_components.plan import Plan, Step
from aiprod_components.stages import ALWAYS
from deployments.envelope import Sealed
from deployments.keeping import KeptStep
from deployments.orders import Order

LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, RayServeException)
FAREWELL_SECONDS = 30.0  # for a stage to end its current step when it is not wanted any more


def find_stages(family: str, *, stages: Iterable[str] = ALWAYS) -> dict[str, DeploymentHandle]:
    """Of the application that serves a family, these stages. Asks the controller. Raises UnavailableError before it has started."""
    try:
        return {stage: serve.get_deployment_handle(stage, app_name=family) for stage in stages}
    except (RayServeException, KeyError) as error:  # no Serve, or no such application
        raise UnavailableError(f"model {family} is not running yet; wait until /readyz answers 200") from error


def plain_order(step: Step) -> Order:
    """Of a plan that belongs to no job."""
    return Order(step.name, step.call)


async def run_plan(
    plan: Plan,
    *,
    handles: Mapping[str, DeploymentHandle],
    order: Callable[[Step], Order] = plain_order,
    kept: Mapping[str, KeptStep] | None = None,
) -> Sealed:
    """Walks a plan on Ray Serve; `handles` are the family's stages by name, `kept` the steps that were finished before.

    Raises what a stage raised, UnavailableError when a stage is gone, BackPressureError when its queue is full. When it ends early,
    its caller's cancellation included, it returns when no step goes on.
    """
    responses: dict[str, Any] = dict(kept or {})
    sent: list[Any] = []
    try:
        for step in steps_to_run(plan, kept=responses.keys()):
            inputs = {name: responses[name] for name in step.inputs}
            responses[step.name] = handles[step.call.stage].run.remote(order(step), **inputs)
            sent.append(responses[step.name])
        return await responses[plan.output]
    except BaseException as error:
        await _stop(sent)
        if (cause := _unwrapped(error)) is error:
            raise
        raise cause from error


def steps_to_run(plan: Plan, *, kept: Iterable[str]) -> list[Step]:
    """The steps that the answer needs, given the results that are there already."""
    there, needed = set(kept), {plan.output}
    for step in reversed(plan.steps):
        if step.name in needed and step.name not in there:
            needed.update(step.inputs)
    return [step for step in plan.steps if step.name in needed and step.name not in there]


async def _stop(responses: list[Any]) -> None:
    for response in responses:
        with suppress(Exception):  # one that could not even be sent says so here
            response.cancel()
    # A cancelled call answers when its stage has stopped.
    endings = asyncio.gather(*(_ended(response) for response in responses))
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(endings, FAREWELL_SECONDS)


async def _ended(response: Any) -> None:
    with suppress(Exception, asyncio.CancelledError):  # whatever it ends with: it was to end
        await response


def _unwrapped(error: BaseException) -> BaseException:
    """What went wrong, without Ray's wrapping and in AIPROD's words where it is Ray's own failure."""
    cause: Any = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, TaskCancelledError):
        return CancelledError("the work was cancelled while a stage did it")
    if isinstance(cause, LOST) and not isinstance(cause, BackPressureError):
        return UnavailableError(f"a stage stopped while it worked for this request ({type(cause).__name__}); try again in a few seconds")
    return cause
