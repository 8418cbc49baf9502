"""serve_config.yaml -> the arguments of builders and stages, checked before anything starts

Ray Serve accepts misspelt options and unknown deployments without a word; `check_config` does not.
"""

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
)

from aiprod_components.errors import AiprodError, ConfigError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.stages import STAGES, stages_of

FAMILY, INGRESS = "family", "ingress"  # the root deployments of the two kinds of application


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FamilyArgs(_Strict):
    """A model family to serve.

    `weights` is a folder (or `random`), absent: the family's own. `loras` is a folder with more LoRAs than are with the weights.
    `prompt_enhancer` is a `transformers` folder with a causal language model, absent: prompts stay as they are.
    """

    name: str
    weights: str | None = None
    loras: str | None = None
    prompt_enhancer: str | None = None

    def make(self) -> Family:
        """The family. Raises AiprodError when there is none of that name, or none without weights."""
        return make_family(self.name, weights=self.weights, loras=self.loras, prompt_enhancer=self.prompt_enhancer)


class ApiArgs(_Strict):
    """The families that the API offers, each an application of its own by the family's name; the first is the default."""

    families: list[FamilyArgs] = Field(min_length=1)


class StageConfig(_Strict):
    """A stage's `user_config`: what can change while it runs."""

    threads: int = Field(default=1, ge=1, le=1024)


class NoConfig(_Strict):
    """The `user_config` of a deployment that takes none."""


# Builder -> what its application takes: its arguments, its deployments and their `user_config`.
BUILDERS: dict[str, tuple[type[BaseModel], dict[str, type[BaseModel]]]] = {
    "deployments.graph:family": (FamilyArgs, {FAMILY: NoConfig, **dict.fromkeys(STAGES, StageConfig)}),
    "deployments.graph:api": (ApiArgs, {INGRESS: NoConfig}),
}


# The parts of a deployment whose own options Serve does not check.
BLOCKS: dict[str, type[BaseModel]] = {
    "ray_actor_options": RayActorOptionsSchema,
    "autoscaling_config": AutoscalingConfig,
}


def check_config(path: str | Path) -> dict[str, Any]:
    """The config as it stands in the file. Raises ConfigError listing everything in it that Serve would pass over in silence."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(config)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"{path} is not a Ray Serve config: {error}") from error
    if faults := list(_faults(config)):
        raise ConfigError(f"{path}: " + "; ".join(faults))
    return config


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown_keys(config, ServeDeploySchema, at="config")
    yield from _unknown_keys(config.get("http_options") or {}, HTTPOptionsSchema, at="http_options")
    faults = [fault for application in config["applications"] for fault in _application_faults(application)]
    yield from faults or _family_faults(config["applications"])


def _application_faults(application: Mapping[str, Any]) -> Iterator[str]:
    name = _name(application)
    yield from _unknown_keys(application, ServeApplicationSchema, at=name)
    if application["import_path"] not in BUILDERS:
        yield f"{name}.import_path is {application['import_path']!r}; the builders are {', '.join(BUILDERS)}"
        return
    args, deployments = BUILDERS[application["import_path"]]
    yield from _invalid(application.get("args") or {}, args, at=f"{name}.args")
    for deployment in application.get("deployments") or []:
        at = f"{name}.{deployment['name']}"
        if deployment["name"] not in deployments:
            yield f"{at} is not a deployment; they are {', '.join(deployments)}"
            continue
        yield from _unknown_keys(deployment, DeploymentSchema, at=at)
        for block, schema in BLOCKS.items():
            yield from _unknown_keys(deployment.get(block) or {}, schema, at=f"{at}.{block}")
        yield from _invalid(deployment.get("user_config") or {}, deployments[deployment["name"]], at=f"{at}.user_config")


def _family_faults(applications: list[dict[str, Any]]) -> Iterator[str]:
    """The API finds a family by the name of its application, and a family is one that can be made."""
    by_builder = {kind: [a for a in applications if a["import_path"] == f"deployments.graph:{kind}"] for kind in ("family", "api")}
    served = {_name(application): application.get("args") or {} for application in by_builder["family"]}
    for application in by_builder["family"]:
        name, args = _name(application), served[_name(application)]
        if args.get("name") != name:
            yield f"{name}.args.name is {args.get('name')!r}; a family's application bears its name"
        try:
            yield from _stage_faults(application, FamilyArgs.model_validate(args).make())
        except AiprodError as error:
            yield f"{name}.args: {error.message}"
    if [application.get("route_prefix", "/") for application in by_builder["api"]] != ["/"]:
        yield "one application must be deployments.graph:api, at route_prefix /"
    for application in by_builder["api"]:
        for offered in (application.get("args") or {}).get("families") or []:
            if offered not in served.values():
                yield f"{_name(application)}.args.families has {offered}, which is no application's args here"


def _stage_faults(application: Mapping[str, Any], family: Family) -> Iterator[str]:
    """A stage is configured where the family has it, and what it needs is there."""
    for argument, folder, what in (
        ("prompt_enhancer", family.prompt_enhancer, "that of a language model"),
        ("loras", family.lora_folder, "one with LoRAs"),
    ):
        if folder is not None and not folder.is_dir():
            yield f"{_name(application)}.args.{argument} is {str(folder)!r}, where no folder is; name {what}"
    for stage in [deployment["name"] for deployment in application.get("deployments") or []]:
        if stage in STAGES and stage not in stages_of(family):
            yield f"{_name(application)}.{stage} has nothing to run; name a folder as {stage} in the application's args, or leave it out"


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
