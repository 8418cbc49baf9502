"""serve_config.yaml -> the families that it serves and its slots; and, with a plan, the same config with the replicas that were planned"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aiprod_components.errors import CheckpointError, ConfigError, InvalidRequestError
from aiprod_components.families.aiprod import RANDOM
from aiprod_components.families.base import Family
from aiprod_components.families.ltx2 import unserved_ltx2
from aiprod_components.families.ltx2_folder import VERSIONS
from deployments.capacity.model import UNLIMITED
from deployments.capacity.pools import LABEL, Pools
from deployments.settings import DISPATCHER, FamilyArgs, load_config, slots_of

FAMILY_BUILDER, API_BUILDER = "deployments.graph:family", "deployments.graph:api"
MOST_SLOTS = 1000  # of one dispatcher
ROOM = 1.25  # slots beside the most that were taken in the simulation
DEFAULT_VERSION = "2.3"


@dataclass(frozen=True)
class Served:
    """What a config serves. `absent` says of each family whose folder is not here what it was taken for.

    `slots` are jobs of a family at once, of all dispatchers together; UNLIMITED where these are as many as it takes.
    """

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
    if not path.is_file():
        raise InvalidRequestError(f"config: {path} cannot be read (no such file); name a serve config", field="config")
    config = load_config(path)
    families: dict[str, Family] = {}
    absent: dict[str, str] = {}
    for application in _applications(config, FAMILY_BUILDER):
        args = FamilyArgs.model_validate(application.get("args") or {})
        families[args.name], told = _family_of(args)
        if told is not None:
            absent[args.name] = told
    slots = slots_of(config)
    return Served(config, families, absent, UNLIMITED if math.isinf(slots) else int(slots))


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


def with_sizes(served: Served, sizes: Sizes, pools: Pools) -> dict[str, Any]:
    """The config with what was planned in the place of what it says of replicas, pools, slots and queues; all else stays.

    Raises InvalidRequestError for a planned stage whose replicas are ranks.
    """
    config = copy.deepcopy(dict(served.config))
    is_said = any(pool.cores for pool in pools.pools) and served.slots < UNLIMITED
    slots = served.slots if is_said else max(math.ceil(sizes.at_once * ROOM), 2)
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
            _check_one_process(named[stage], at=f"{family}.{stage}")
            waiting = slots * sizes.visits[family, stage]  # all steps of a plan are sent at once
            longest = 10 * math.ceil(2 * sizes.seconds[family, stage] / 10)
            _raise_to(named[stage], max_queued_requests=waiting, graceful_shutdown_timeout_s=longest)
            _size_stage(named[stage], replicas, stage, pools)
        # Our policy wants all stages or none; those that the traffic does not need scale by Serve's own count.
        application.pop("autoscaling_policy", None)
    for application in _applications(config, API_BUILDER):
        _size_dispatcher(application, slots)
    return config


def _check_one_process(deployment: Mapping[str, Any], *, at: str) -> None:
    if deployment.get("placement_group_bundles"):
        raise InvalidRequestError(
            f"config: {at} has placement_group_bundles, and a pool says cards of one process; leave --output out, and write the planned "
            "num_replicas into the config by hand",
            field="config",
        )


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
    dispatcher.pop("autoscaling_config", None)
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
