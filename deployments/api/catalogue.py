"""families -> what `GET /v1/models` says of them; a plan -> what `POST /v1/plans` says of it"""

from dataclasses import asdict
from typing import Any

from aiprod_components.families.base import Family
from aiprod_components.families.loras import LoraFile
from aiprod_components.pipelines import DEFAULT_PIPELINE, PIPELINES, defaults_of, pipelines_of
from aiprod_components.pipelines.base import TEMPORAL
from aiprod_components.pipelines.fields import UPSCALES
from aiprod_components.plan import describe
from deployments.api.wire import Asked, Wire


def list_models(wire: Wire) -> dict[str, Any]:
    """OpenAI's list of models, with what a client must know to ask: pipelines with their fields, defaults, limits, grid, licence.

    `unavailable` has those that should be served and cannot be, with the reason.
    """
    data = [_describe_family(family, wire=wire) for family in wire.families.values()]
    return {"object": "list", "data": data, "unavailable": [{"id": name, "reason": fault} for name, fault in wire.faults.items()]}


def _describe_family(family: Family, *, wire: Wire) -> dict[str, Any]:
    return {
        "id": family.name,
        "object": "model",
        "created": 0,  # OpenAI's clients expect a date, which a family has not
        "owned_by": "aiprod",
        "title": family.title,
        "licence": family.licence,
        "default_pipeline": DEFAULT_PIPELINE,
        "pipelines": {name: _describe_pipeline(family, name, wire=wire) for name in pipelines_of(family)},
        "defaults": defaults_of(family),
        "abilities": _abilities(family),
        "loras": [_describe_lora(lora) for lora in family.loras.values()],
        "limits": asdict(family.limits),
        "grid": asdict(family.grid),
    }


def _describe_pipeline(family: Family, name: str, *, wire: Wire) -> dict[str, Any]:
    return {"description": PIPELINES[name].__doc__, "fields": wire.schemas[family.name, name]}


def _abilities(family: Family) -> dict[str, Any]:
    """What fields ask for that not every family has weights for."""
    return {
        "upscale": [scale for scale, (_, _, network) in UPSCALES.items() if family.has(network)],
        "double_frame_rate": family.has(TEMPORAL),
        "keep_sound": family.makes_sound,
        "enhance_prompt": family.prompt_enhancer is not None,
    }


def _describe_lora(lora: LoraFile) -> dict[str, Any]:
    return {"name": lora.name, "component": lora.component, "control": lora.control, "fault": lora.fault}


def describe_plan(asked: Asked) -> dict[str, Any]:
    return {**describe(asked.plan), "seed": asked.request.seed}
