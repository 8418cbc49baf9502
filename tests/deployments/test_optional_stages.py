"""a language model's folder in a family's args -> a deployment more; without one, none, and a config that says so"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.calls import EnhancePrompt
from aiprod_components.errors import ConfigError
from aiprod_components.stages import AIPROD_STAGES, ALWAYS
from aiprod_components.stages.base import Progress
from deployments import runner
from deployments.envelope import Sealed
from deployments.graph import check_config, family
from deployments.orders import Order
from deployments.runner import find_stages
from deployments.settings import FamilyArgs
from deployments.stage import StageReplica

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"


class Shouting:
    """In the place of a language model."""

    def __init__(self, family: object, *, device: object) -> None:
        pass

    def run(self, call: EnhancePrompt, progress: Progress) -> str:
        return f"{call.prompt}!"


def stages_in(args: FamilyArgs) -> list[str]:
    return list(family(args)._bound_deployment.init_kwargs)


def checked(folder: Path, *, args: dict[str, Any], deployments: list[dict[str, Any]]) -> dict[str, Any]:
    """serve_config.yaml with these args and deployments added to the family, as it is read."""
    config = yaml.safe_load(CONFIG.read_text())
    application, api = config["applications"]
    application["args"] |= args
    application["deployments"] += deployments
    api["args"]["families"] = [application["args"]]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return check_config(folder / "config.yaml")


def test_a_graph_has_an_optional_stage_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert stages_in(FamilyArgs(name="miniature")) == list(ALWAYS)
    assert stages_in(FamilyArgs(name="miniature", prompt_enhancer=str(tmp_path))) == list(AIPROD_STAGES)


def test_a_config_may_name_a_language_model_and_what_its_stage_gets(tmp_path: Path) -> None:
    deployment = {"name": "prompt_enhancer", "user_config": {"threads": 2}}
    config = checked(tmp_path, args={"prompt_enhancer": str(tmp_path)}, deployments=[deployment])
    assert config["applications"][0]["deployments"][-1] == deployment


def test_a_language_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"miniature.args.prompt_enhancer is '.*absent', where no folder is; name that of a language model"
    ):
        checked(tmp_path, args={"prompt_enhancer": str(tmp_path / "absent")}, deployments=[])


def test_options_of_an_optional_stage_that_nobody_asked_for_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"miniature.prompt_enhancer has nothing to run; name a folder as prompt_enhancer"):
        checked(tmp_path, args={}, deployments=[{"name": "prompt_enhancer"}])


def test_handles_are_asked_for_only_of_stages_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.serve, "get_deployment_handle", lambda stage, app_name: (app_name, stage))
    assert find_stages("miniature") == {stage: ("miniature", stage) for stage in ALWAYS}
    assert find_stages("miniature", stages=AIPROD_STAGES)["prompt_enhancer"] == ("miniature", "prompt_enhancer")


def test_an_enhanced_prompt_travels_from_replica_to_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AIPROD_STAGES, "prompt_enhancer", Shouting)
    replica = StageReplica(FamilyArgs(name="miniature"), "prompt_enhancer")
    sealed: Sealed = asyncio.run(replica.run(Order("enhanced", EnhancePrompt("ein Ball"))))
    assert sealed.open() == "ein Ball!" and type(sealed.open()) is str
    assert [receipt.step for receipt in sealed.receipts] == ["enhanced"]
