"""plan -> calls along its edges -> the last result, sealed; what lies between goes from replica to replica"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from aiprod_components.errors import CancelledError, UnavailableError
from aiprod_components.plan import Plan
from aiprod_components.stages import ALWAYS
from deployments.envelope import Sealed

LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError, RayServeException)


def find_stages(family: str, *, stages: Iterable[str] = ALWAYS) -> dict[str, DeploymentHandle]:
    """Of the application that serves a family, these stages. Asks the controller. Raises UnavailableError before it has started."""
    try:
        return {stage: serve.get_deployment_handle(stage, app_name=family) for stage in stages}
    except RayServeException as error:
        raise UnavailableError(f"model {family} is not running yet; wait until /readyz answers 200") from error


async def run_plan(plan: Plan, *, handles: Mapping[str, DeploymentHandle]) -> Sealed:
    """Walks a plan on Ray Serve; `handles` are the family's stages by name.

    Raises what a stage raised, UnavailableError when a stage is gone, BackPressureError when its queue is full. When it ends early,
    its caller's cancellation included, no step goes on.
    """
    responses: dict[str, Any] = {}
    sent_at = time.time()
    try:
        for step in plan.steps:
            inputs = {name: responses[name] for name in step.inputs}
            responses[step.name] = handles[step.call.stage].run.remote(step.name, step.call, sent_at, **inputs)
        return await responses[plan.output]
    except BaseException as error:
        for response in responses.values():
            response.cancel()
        if (cause := _unwrapped(error)) is error:
            raise
        raise cause from error


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
