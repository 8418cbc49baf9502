"""serve_config.yaml -> the families that it serves and its slots; and, with a plan, the same config with the replicas that were planned"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from aiprod_components.errors import CheckpointError, ConfigError, InvalidRequestError
from aiprod_components.families.aiprod import RANDOM
from aiprod_components.families.base import Family
from aiprod_components.families.ltx2 import unserved_ltx2
from aiprod_components.families.ltx2_folder import VERSIONS
from deployments.capacity.pools import LABEL, Pools
from deployments.settings import DISPATCHER, DispatcherConfig, FamilyArgs

FAMILY_BUILDER, API_BUILDER = "deployments.graph:family", "deployments.graph:api"
MOST_SLOTS = 1000  # of one dispatcher
ROOM = 1.25  # slots beside the most that were taken in the simulation
DEFAULT_VERSION = "2.3"


@dataclass(frozen=True)
class Served:
    """What a config serves. `absent` says of each family whose folder is not here what it was taken for."""

    config: Mapping[str, Any]
    families: Mapping[str, Family]
    absent: Mapping[str, str]
    slots: int


@dataclass(frozen=True)
class Sizes:
    """What a plan says of the config, by (family, stage): replicas, the longest visit in seconds, visits of one job; and jobs at once."""

    replicas: Mapping[tuple[str, str], int]
    seconds: Mapping[tuple[str, str], float]
    visits: Mapping[tuple[str, str], int]
    at_once: int


def read_served(path: Path) -> Served:
    """Raises ConfigError for what is no config. Weights need not be here: what a plan needs to know of a family, its args tell."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(config)
    except OSError as error:
        raise InvalidRequestError(f"config: {path} cannot be read ({error.strerror}); name a serve config", field="config") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"{path} is not a Ray Serve config: {error}") from error
    families: dict[str, Family] = {}
    absent: dict[str, str] = {}
    for application in _applications(config, FAMILY_BUILDER):
        args = FamilyArgs.model_validate(application.get("args") or {})
        families[args.name], told = _family_of(args)
        if told is not None:
            absent[args.name] = told
    return Served(config, families, absent, _slots_in(config))


def _family_of(args: FamilyArgs) -> tuple[Family, str | None]:
    """The family, and what it was taken for where its folder is not here."""
    if args.weights is None or Path(args.weights).exists() or args.weights == RANDOM:
        return args.make(), None
    if args.name == "ltx2":
        said = re.search("|".join(map(re.escape, VERSIONS)), args.weights)
        version = said[0] if said else DEFAULT_VERSION
        variant = args.variant or ("distilled" if "distilled" in args.weights.lower() else "dev")
        return unserved_ltx2(version, variant), f"{args.weights} is not here; taken for LTX-2 {version}, {variant}"
    try:
        return args.model_copy(update={"weights": RANDOM}).make(), f"{args.weights} is not here; its requests were planned without it"
    except CheckpointError as error:
        raise ConfigError(f"{args.name}.args.weights is {args.weights!r}, where nothing is; name its folder") from error


def _slots_in(config: Mapping[str, Any]) -> int:
    """Jobs of a family at once, of all dispatchers together."""
    for application in _applications(config, API_BUILDER):
        for deployment in application.get("deployments") or []:
            if deployment["name"] == DISPATCHER:
                slots = DispatcherConfig.model_validate(deployment.get("user_config") or {}).slots
                return slots * int(deployment.get("num_replicas") or 1)
    return DispatcherConfig().slots


def with_sizes(served: Served, sizes: Sizes, pools: Pools) -> dict[str, Any]:
    """The config with what was planned in the place of what it says of replicas, pools, slots and queues; all else stays."""
    config = copy.deepcopy(dict(served.config))
    slots = served.slots if any(pool.cores for pool in pools.pools) else max(math.ceil(sizes.at_once * ROOM), 2)
    for application in _applications(config, FAMILY_BUILDER):
        family = application["args"]["name"]
        deployments = application.setdefault("deployments", [])
        named = {deployment["name"]: deployment for deployment in deployments}
        for (whose, stage), replicas in sizes.replicas.items():
            if whose != family:
                continue
            if stage not in named:
                named[stage] = dict[str, Any](name=stage, max_ongoing_requests=1)
                deployments.append(named[stage])
            waiting = slots * sizes.visits[family, stage]  # all steps of a plan are sent at once
            longest = 10 * math.ceil(2 * sizes.seconds[family, stage] / 10)
            _raise_to(named[stage], max_queued_requests=waiting, graceful_shutdown_timeout_s=longest)
            _size_stage(named[stage], replicas, stage, pools)
        if not any(deployment.get("autoscaling_config") for deployment in deployments):
            application.pop("autoscaling_policy", None)
    for application in _applications(config, API_BUILDER):
        _size_dispatcher(application, slots)
    return config


def _raise_to(deployment: dict[str, Any], **least: int) -> None:
    for option, amount in least.items():
        deployment[option] = max(deployment.get(option) or 0, amount)


def _size_stage(deployment: dict[str, Any], replicas: int, stage: str, pools: Pools) -> None:
    pool, share = pools.of(stage), pools.share(stage)
    deployment.pop("autoscaling_config", None)
    deployment["num_replicas"] = replicas
    deployment["user_config"] = {**(deployment.get("user_config") or {}), "threads": share.threads}
    options: dict[str, Any] = {**(deployment.get("ray_actor_options") or {}), "num_cpus": share.cpus}
    if share.gpus:
        # The pool's label says the kind of card.
        options.pop("accelerator_type", None)
        options |= {"num_gpus": share.gpus, "label_selector": {**options.get("label_selector", {}), LABEL: pool.name}}
    deployment["ray_actor_options"] = options


def _size_dispatcher(application: dict[str, Any], slots: int) -> None:
    dispatchers = math.ceil(slots / MOST_SLOTS)
    deployments = application.setdefault("deployments", [])
    dispatcher: dict[str, Any] | None = next((each for each in deployments if each["name"] == DISPATCHER), None)
    if dispatcher is None:
        dispatcher = dict[str, Any](name=DISPATCHER)
        deployments.append(dispatcher)
    dispatcher["num_replicas"] = dispatchers
    dispatcher["user_config"] = {**(dispatcher.get("user_config") or {}), "slots": math.ceil(slots / dispatchers)}


def write_config(config: Mapping[str, Any], path: Path, *, comment: str) -> None:
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    path.write_text(f"{head}\n{yaml.dump(dict(config), Dumper=_Plain, sort_keys=False, width=140)}", encoding="utf-8")


class _Plain(yaml.SafeDumper):
    """Says a thing twice rather than by a name."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _applications(config: Mapping[str, Any], builder: str) -> list[dict[str, Any]]:
    return [application for application in config["applications"] if application["import_path"] == builder]
