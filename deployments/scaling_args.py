"""an application's `autoscaling_policy` in serve_config.yaml -> its checked arguments, or what is wrong with it

Apart from the policy, whose module Serve sends to the controller by value: what pydantic makes does not travel so.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.serve.config import AutoscalingPolicy

POLICY = "deployments.autoscaling:WorkPolicy"
GRACE = "graceful_shutdown_timeout_s"


class PolicyArgs(BaseModel):
    """`policy_kwargs` of our policy. How long to wait before a change is each deployment's own, by Serve's `upscale_delay_s`,
    `downscale_delay_s` and `downscale_to_zero_delay_s`.

    `horizon_seconds` is the time in which known work should be done, and so the seconds of work for one replica: no less than a replica
    takes to start. A wish that falls fades within `smoothing_seconds` (0: at once). Without news for `stale_seconds` Serve's own count of
    ongoing requests decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizon_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    smoothing_seconds: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    stale_seconds: float = Field(default=15.0, ge=2, allow_inf_nan=False)


def policy_faults(application: Mapping[str, Any], *, at: str, stages: Collection[str]) -> Iterator[str]:
    """Of an application at this place in the config, and of its deployments, of which those by these names are stages."""
    said = application.get("autoscaling_policy")
    deployments = application.get("deployments") or []
    for deployment in deployments:
        policy = (deployment.get("autoscaling_config") or {}).get("policy") or {}
        if _is_ours(policy.get("policy_function")):
            place = f"{at}.{deployment['name']}.autoscaling_config.policy"
            yield f"{place} is {POLICY}, which looks at all stages of a family at once; say it as {at}.autoscaling_policy, once"
    if said is None:
        return
    for key in said:
        if key not in AutoscalingPolicy.model_fields:
            yield f"{at}.autoscaling_policy.{key} is not an option; they are {', '.join(AutoscalingPolicy.model_fields)}"
    if _is_ours(said.get("policy_function")):
        yield from _argument_faults(said.get("policy_kwargs") or {}, at=f"{at}.autoscaling_policy.policy_kwargs")
        yield from _stage_faults([each for each in deployments if each["name"] in stages], at=at)
    elif application.get("import_path", "").endswith(":family"):
        yield f"{at}.autoscaling_policy.policy_function is {said.get('policy_function')!r}; the policy for a family is {POLICY}"


def slot_faults(application: Mapping[str, Any], *, at: str, slots: float) -> Iterator[str]:
    """Of a family whose jobs at work are this many at most, over all dispatchers.

    A job is with one replica of a stage at a time, so a stage with more replicas than slots pays for some that never work. That all stages
    are at their most at once is nothing that must be: where it is to be so, slots are as many as all `max_replicas` together.
    """
    if not _is_ours((application.get("autoscaling_policy") or {}).get("policy_function")):
        return
    for deployment in application.get("deployments") or []:
        most = (deployment.get("autoscaling_config") or {}).get("max_replicas", 1)
        if most > slots:
            place, way_out = f"{at}.{deployment['name']}.autoscaling_config.max_replicas", "raise dispatcher.user_config.slots"
            yield f"{place} is {most}, and the dispatchers have slots for {slots} jobs: so many never work; {way_out}"


def _is_ours(function: Any) -> bool:
    return str(function).replace(":", ".") == POLICY.replace(":", ".")


def _argument_faults(arguments: Mapping[str, Any], *, at: str) -> Iterator[str]:
    try:
        PolicyArgs.model_validate(arguments)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            name = ".".join(map(str, fault["loc"]))
            if fault["type"] == "extra_forbidden":
                yield f"{at}.{name} is not an option; they are {', '.join(PolicyArgs.model_fields)}"
            else:
                yield f"{at}.{name} is {fault['input']!r}: {fault['msg']}"


def _stage_faults(stages: list[Mapping[str, Any]], *, at: str) -> Iterator[str]:
    if not stages:
        yield f"{at}.autoscaling_policy has nothing to scale; give its stages autoscaling_config, or leave it out"
    for stage in stages:
        place = f"{at}.{stage['name']}"
        if not stage.get("autoscaling_config") and stage.get("num_replicas") != "auto":
            # Serve shows a policy the others only, and it would scale them for more than this one lets through.
            count = stage.get("num_replicas") or 1
            way_out = f"for a fixed number say {{min_replicas: {count}, max_replicas: {count}}} in the place of num_replicas"
            yield f"{place}.autoscaling_config is missing, and without it the policy does not know of the stage; {way_out}"
        elif GRACE not in stage:
            # Serve's 20 s are less than most steps take, and what is not done by then is done again elsewhere.
            yield f"{place}.{GRACE} is missing; a replica that goes ends its calls in it: say more than a job takes"
