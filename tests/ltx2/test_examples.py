"""examples/ltx2 -> accepted as they stand, on a tiny folder in the place of theirs; and what they promise of cards holds"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from aiprod_components.families import make_family
from aiprod_components.stages import STAGES, stages_of
from deployments.graph import check_config
from tests.graph import ROOT
from tests.ltx2.conftest import FolderOf

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples/ltx2").glob("*.yaml"))}
# Example -> cards of each kind, and whether one machine has them all.
CARDS: dict[str, tuple[dict[str | None, int], bool]] = {
    "one-80gb": ({None: 1}, True),
    "eight-h100": ({None: 8}, True),
    "eight-h100-pairs": ({None: 8}, True),
    "l4-h100": ({"L4": 3, "H100": 3}, False),
}


def with_weights(config: dict[str, Any], weights: Path) -> dict[str, Any]:
    """The config with another folder wherever it names its own."""
    families = [application["args"] for application in config["applications"] if application["import_path"].endswith(":family")]
    (api,) = [application["args"] for application in config["applications"] if application["import_path"].endswith(":api")]
    for args in (*families, *api["families"]):
        args["weights"] = str(weights)
    return config


def stages_in(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for application in config["applications"] for each in application["deployments"] if each["name"] in STAGES]


def test_there_is_a_line_here_for_every_example() -> None:
    assert set(EXAMPLES) == set(CARDS)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_an_example_is_accepted(example: str, version: str, folder_of: FolderOf, tmp_path: Path) -> None:
    weights = tmp_path / "LTX-2"
    weights.symlink_to(folder_of(version))
    config = with_weights(yaml.safe_load(EXAMPLES[example].read_text()), weights)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert ServeDeploySchema.model_validate(check_config(tmp_path / "config.yaml"))


def test_the_ranks_of_the_manual_are_accepted(folder_of: FolderOf, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ltx2.md").read_text(), re.DOTALL)
    (denoiser,) = yaml.safe_load(shown)
    assert len(denoiser["placement_group_bundles"]) == 2
    config = with_weights(yaml.safe_load(EXAMPLES["eight-h100"].read_text()), folder_of("2.3"))
    stages = config["applications"][0]["deployments"]
    config["applications"][0]["deployments"] = [denoiser if stage["name"] == "denoiser" else stage for stage in stages]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert check_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_names_every_stage_and_gives_it_a_card_and_a_bounded_queue(example: str, folder_of: FolderOf) -> None:
    stages = stages_in(yaml.safe_load(EXAMPLES[example].read_text()))
    assert {stage["name"] for stage in stages} == set(stages_of(make_family("ltx2", weights=str(folder_of("2.3")))))
    for stage in stages:
        assert stage["ray_actor_options"]["num_gpus"] > 0 and stage["max_queued_requests"] > 0, stage["name"]
        assert stage["graceful_shutdown_timeout_s"] >= 60, stage["name"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_examples_stages_fit_the_cards_that_it_is_for_in_whatever_order_they_come(example: str) -> None:
    stages, (cards, _) = stages_in(yaml.safe_load(EXAMPLES[example].read_text())), CARDS[example]
    shares: dict[str | None, list[float]] = {kind: [] for kind in cards}
    for stage in stages:
        options = stage["ray_actor_options"]
        ranks = [bundle["GPU"] for bundle in stage.get("placement_group_bundles", [])]
        shares[options.get("accelerator_type")] += (ranks or [options["num_gpus"]]) * stage["num_replicas"]
    for kind, count in cards.items():
        for order in (sorted(shares[kind]), sorted(shares[kind], reverse=True)):
            assert len(packed(order)) <= count, (kind, order)


def packed(shares: list[float]) -> list[float]:
    """What is left of each card, where every share goes to the fullest card that has room for it, as Ray does it."""
    left: list[float] = []
    for share in shares:
        room = [place for place, free in enumerate(left) if free >= share - 1e-9]
        place = min(room, key=left.__getitem__) if room else len(left)
        left[place : place + 1] = [(left[place] if room else 1.0) - share]
    return left


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_for_several_machines_keeps_its_jobs_where_all_of_them_reach_them(example: str) -> None:
    config = yaml.safe_load(EXAMPLES[example].read_text())
    (api,) = [application["args"] for application in config["applications"] if application["name"] == "api"]
    is_one_machine = CARDS[example][1]
    assert (config["proxy_location"] == "HeadOnly") is is_one_machine
    assert ({"database", "artifacts"} <= api.keys()) is not is_one_machine
