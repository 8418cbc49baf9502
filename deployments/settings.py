"""serve_config.yaml -> the arguments of builders and stages, checked before anything starts

Ray Serve accepts misspelt options and unknown deployments without a word; `check_config` does not.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
    gRPCOptionsSchema,
)

from aiprod_components.errors import AiprodError, ConfigError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.stages import SHARED, STAGES, stages_of
from aiprod_components.watermarks import make_watermark
from deployments.outgoing import OutgoingPolicy
from deployments.placement import placement_faults
from deployments.scaling_args import policy_faults, slot_faults

FAMILY, INGRESS = "family", "ingress"  # the root deployments of the two kinds of application
DISPATCHER = "dispatcher"
API = "api"  # the application in which stages find the dispatcher
MOST_DAYS = 400  # that are looked back on
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FamilyArgs(_Strict):
    """A model family to serve.

    `weights` is a folder (or `random`), absent: the family's own. `loras` is a folder with more LoRAs than are with the weights.
    `prompt_enhancer` is a `transformers` folder with a causal language model, absent: prompts stay as they are. `watermark` marks every
    frame: "visible", "invisible", or an operator's own as package.module:factory.

    For families that know them (ltx2): `variant` (dev, distilled), absent: by the checkpoint; absent, the first of `precision` (bfloat16,
    float32, float8), `compile` (false, true), `attention` (auto, flash3, xformers, native), `offload` (none, group), `tiling` of the
    VAE (auto, always, never) and `cache` (a threshold; 0: none).
    """

    name: str
    weights: str | None = None
    loras: str | None = None
    prompt_enhancer: str | None = None
    watermark: str | None = None
    variant: str | None = None
    precision: str | None = None
    compile: bool | None = None
    attention: str | None = None
    offload: str | None = None
    tiling: str | None = None
    cache: float | None = None

    def make(self) -> Family:
        """The family. Raises AiprodError when there is none of that name, or none without weights."""
        return make_family(**self.model_dump())


class QueueArgs(_Strict):
    """How much may wait and run: jobs of all tenants, then jobs and cost of each, unless `aiprod tenants set` says otherwise of one.

    A point of `priority` is worth so many seconds of waiting. Cost is in thousand token passes, what `POST /v1/plans` says.
    """

    max_queued_of_all: int = Field(default=10_000, ge=1)
    max_queued: int = Field(default=1_000, ge=1)
    max_running: int = Field(default=1_000, ge=1)
    max_cost_per_day: float = Field(default=math.inf, gt=0)
    seconds_per_priority: float = Field(default=36.0, ge=0)


class CacheArgs(_Strict):
    """Results of finished steps that are kept for requests to come, in bytes of the artifact store.

    They are a tenant's own; `share_prompts` shares those between tenants that were made from texts alone.
    """

    max_bytes: int = Field(default=2_000_000_000, ge=0)
    share_prompts: bool = False


class AnalyticsArgs(_Strict):
    """What `GET /v1/analytics` tells: the price of a GPU's hour (absent: nothing in money), and for how many days what ended is known."""

    gpu_hour_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    kept_days: int = Field(default=MOST_DAYS, ge=1, le=MOST_DAYS)


class ProvenanceArgs(_Strict):
    """PEM files to sign finished videos with (C2PA), on every node that decodes: a certificate chain and its private key."""

    certificate: str
    key: str


class ApiArgs(_Strict):
    """What the API offers and where it keeps what must survive.

    `families` are applications of their own by the family's name; the first is the default. `data` is a folder for the database and the
    artifacts (absent: $AIPROD_DATA, or ~/.local/share/aiprod); several machines need `database` (postgresql+psycopg://…) and `artifacts`
    (s3://…, gs://…, az://…). With `keys` every request needs an API key. `rate` is what one key may ask for (without keys:
    all clients together). `retention_hours` is how long finished videos are kept. `outgoing` lets requests name URLs, of media and of
    webhooks.
    """

    families: list[FamilyArgs] = Field(min_length=1)
    data: str | None = None
    database: str | None = None
    artifacts: str | None = None
    keys: bool = False
    rate: str = "1200/minute"
    retention_hours: float = Field(default=24.0, gt=0)
    queue: QueueArgs = QueueArgs()
    cache: CacheArgs = CacheArgs()
    outgoing: OutgoingPolicy = OutgoingPolicy()
    provenance: ProvenanceArgs | None = None
    analytics: AnalyticsArgs = AnalyticsArgs()

    @property
    def folder(self) -> Path:
        return Path(self.data or os.environ.get("AIPROD_DATA") or Path.home() / ".local/share/aiprod").absolute()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'jobs.sqlite'}"

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or f"file://{self.folder / 'artifacts'}"

    @property
    def fits_one_machine_only(self) -> str | None:
        """What keeps this from running on several machines, and the way out."""
        if self.database_url.startswith("sqlite"):
            return "the job database is SQLite, which serves one machine; name args.database (postgresql+psycopg://USER@HOST/DATABASE)"
        if self.artifacts_url.startswith("file://"):
            return "artifacts lie in a local folder, which serves one machine; name a bucket as args.artifacts (s3://BUCKET/PREFIX)"
        return None


class DispatcherConfig(_Strict):
    """A dispatcher's `user_config`: jobs at once, seconds after which a silent dispatcher's jobs go to another, and tries of a job.

    A try counts when a worker was lost, or the artifact store refused; after that the next is `refused_seconds` later.
    """

    slots: int = Field(default=4, ge=1, le=10_000)
    lease_seconds: float = Field(default=15.0, gt=0.5)
    max_attempts: int = Field(default=5, ge=1, le=100)
    refused_seconds: float = Field(default=30.0, ge=0)


class StageConfig(_Strict):
    """A stage's `user_config`: what can change while it runs.

    `weights` is a folder laid out as the family's own, from which the stage's networks are taken; absent: the family's. A replica
    that cannot take them goes on with those that it has.
    """

    threads: int = Field(default=1, ge=1, le=1024)
    weights: str | None = Field(default=None, min_length=1)


class NoConfig(_Strict):
    """The `user_config` of a deployment that takes none."""


# Builder -> what its application takes: its arguments, its deployments and their `user_config`.
BUILDERS: dict[str, tuple[type[BaseModel], dict[str, type[BaseModel]]]] = {
    "deployments.graph:family": (FamilyArgs, {FAMILY: NoConfig, **dict.fromkeys(STAGES, StageConfig)}),
    "deployments.graph:api": (ApiArgs, {INGRESS: NoConfig, DISPATCHER: DispatcherConfig}),
}


# The parts of a deployment whose own options Serve does not check.
BLOCKS: dict[str, type[BaseModel]] = {
    "ray_actor_options": RayActorOptionsSchema,
    "autoscaling_config": AutoscalingConfig,
}


def check_config(path: str | Path) -> dict[str, Any]:
    """The config as it stands in the file. Raises ConfigError listing everything in it that Serve would pass over in silence."""
    return read_config(path)[0]


def read_config(path: str | Path) -> tuple[dict[str, Any], tuple[Family, ...]]:
    """The same, and its families, which checking it takes to make. Raises ConfigError as `check_config` does."""
    config = load_config(path)
    made = {_name(application): _make(application) for application in _of_builder("family", config)}
    if faults := [*_family_faults(config, made), *_reach_faults(config)]:
        raise ConfigError(f"{path}: " + "; ".join(faults))
    return config, tuple(family for family in made.values() if isinstance(family, Family))


def load_config(path: str | Path) -> dict[str, Any]:
    """The config as it stands in the file, its options checked; not what its folders hold. Raises ConfigError as `check_config` does."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(config)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"{path} is not a Ray Serve config: {error}") from error
    if faults := list(_option_faults(config)):
        raise ConfigError(f"{path}: " + "; ".join(faults))
    return config


def _option_faults(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown_keys(config, ServeDeploySchema, at="config")
    yield from _unknown_keys(config.get("http_options") or {}, HTTPOptionsSchema, at="http_options")
    yield from _unknown_keys(config.get("grpc_options") or {}, gRPCOptionsSchema, at="grpc_options")
    for application in config["applications"]:
        yield from _application_faults(application)


def _application_faults(application: Mapping[str, Any]) -> Iterator[str]:
    name = _name(application)
    yield from _unknown_keys(application, ServeApplicationSchema, at=name)
    if application["import_path"] not in BUILDERS:
        yield f"{name}.import_path is {application['import_path']!r}; the builders are {', '.join(BUILDERS)}"
        return
    args, deployments = BUILDERS[application["import_path"]]
    yield from _invalid(application.get("args") or {}, args, at=f"{name}.args")
    yield from policy_faults(application, at=name, stages=STAGES)
    for deployment in application.get("deployments") or []:
        at = f"{name}.{deployment['name']}"
        if deployment["name"] not in deployments:
            yield f"{at} is not a deployment; they are {', '.join(deployments)}"
            continue
        yield from _unknown_keys(deployment, DeploymentSchema, at=at)
        yield from placement_faults(deployment, at=at)
        for block, schema in BLOCKS.items():
            yield from _unknown_keys(deployment.get(block) or {}, schema, at=f"{at}.{block}")
        yield from _invalid(deployment.get("user_config") or {}, deployments[deployment["name"]], at=f"{at}.user_config")


def _of_builder(kind: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [application for application in config["applications"] if application["import_path"] == f"deployments.graph:{kind}"]


def _make(application: Mapping[str, Any]) -> Family | AiprodError:
    """The family of an application, or why there is none."""
    try:
        family = FamilyArgs.model_validate(application.get("args") or {}).make()
        if family.watermark is not None:
            make_watermark(family.watermark)
    except AiprodError as error:
        return error
    return family


def _family_faults(config: Mapping[str, Any], made: Mapping[str, Family | AiprodError]) -> Iterator[str]:
    """The API finds a family by the name of its application, and a family is one that can be made."""
    served = {_name(application): application.get("args") or {} for application in _of_builder("family", config)}
    for application in _of_builder("family", config):
        name, family = _name(application), made[_name(application)]
        if served[name].get("name") != name:
            yield f"{name}.args.name is {served[name].get('name')!r}; a family's application bears its name"
        if isinstance(family, AiprodError):
            yield f"{name}.args: {family.message}"
        else:
            yield from _stage_faults(application, family)
        yield from slot_faults(application, at=name, slots=slots_of(config))
    if [application.get("route_prefix", "/") for application in _of_builder("api", config)] != ["/"]:
        yield "one application must be deployments.graph:api, at route_prefix /"
    for application in _of_builder("api", config):
        for offered in (application.get("args") or {}).get("families") or []:
            if offered not in served.values():
                yield f"{_name(application)}.args.families has {offered}, which is no application's args here"


def slots_of(config: Mapping[str, Any]) -> float:
    """For jobs of a family, of all dispatchers together; without end where their number is not said."""
    dispatchers = [each for api in _of_builder("api", config) for each in api.get("deployments") or [] if each["name"] == DISPATCHER]
    said = dispatchers[0] if dispatchers else {}
    count = math.inf if "autoscaling_config" in said or said.get("num_replicas") == "auto" else said.get("num_replicas") or 1
    return DispatcherConfig.model_validate(said.get("user_config") or {}).slots * count


def check_reach(config: Mapping[str, Any], *, host: str) -> None:
    """Raises ConfigError when an API without keys would listen on this address."""
    if faults := list(_reach_faults({**config, "http_options": {**(config.get("http_options") or {}), "host": host}})):
        raise ConfigError("; ".join(faults))


def _reach_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Nobody's server answers the world unasked: without keys it listens to its own machine."""
    host = (config.get("http_options") or {}).get("host", "127.0.0.1")
    for application in config["applications"]:
        if application["import_path"] != "deployments.graph:api":
            continue
        if application.get("name") != API:
            yield f"{_name(application)}.name must be {API!r}: the stages report to the dispatcher there"
        if host not in LOOPBACK and not (application.get("args") or {}).get("keys"):
            yield f"http_options.host is {host}, and {_name(application)}.args.keys is off; say keys: true, or listen on 127.0.0.1"


def _stage_faults(application: Mapping[str, Any], family: Family) -> Iterator[str]:
    """A stage is configured where the family has it, and what it needs is there."""
    for argument, folder, what in (
        ("prompt_enhancer", family.prompt_enhancer, "that of a language model"),
        ("loras", family.lora_folder, "one with LoRAs"),
    ):
        if folder is not None and not folder.is_dir():
            yield f"{_name(application)}.args.{argument} is {str(folder)!r}, where no folder is; name {what}"
    for deployment in application.get("deployments") or []:
        stage, at = deployment["name"], f"{_name(application)}.{deployment['name']}"
        if stage in STAGES and stage not in stages_of(family):
            yield f"{at} has nothing to run; name a folder as {stage} in the application's args, or leave it out"
        elif (weights := (deployment.get("user_config") or {}).get("weights")) is not None:
            yield from _weight_faults(family, stage, weights, at=f"{at}.user_config.weights")
        if len(deployment.get("placement_group_bundles") or []) > 1:
            if (family.architecture, stage) not in SHARED:
                yield f"{at} works in one process; leave placement_group_bundles out"
            elif family.unshared is not None:
                yield f"{at}: {family.unshared}"


def _weight_faults(family: Family, stage: str, weights: str, *, at: str) -> Iterator[str]:
    try:
        with_weights(family, stage, Path(weights))
    except AiprodError as error:
        yield f"{at}: {error.message}"


def _name(application: Mapping[str, Any]) -> str:
    return application.get("name", ServeApplicationSchema.model_fields["name"].default)


def _unknown_keys(record: Mapping[str, Any], schema: type[BaseModel], *, at: str) -> Iterator[str]:
    for key in record:
        if key not in schema.model_fields:
            yield f"{at}.{key} is not an option; they are {', '.join(schema.model_fields)}"


def _invalid(record: Mapping[str, Any], model: type[BaseModel], *, at: str) -> Iterator[str]:
    try:
        model.model_validate(record, strict=True)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            yield f"{'.'.join([at, *map(str, fault['loc'])])}: {fault['msg']}"
