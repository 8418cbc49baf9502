"""a placement group in serve_config.yaml -> whether ranks would work in it; what is wrong is told before anything starts"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.errors import ConfigError
from deployments.graph import check_config
from deployments.placement import placement_faults

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"
CARD = {"CPU": 1, "GPU": 1}
ONE_OF_EACH = {"num_cpus": 1, "num_gpus": 1}
FIRST = "the first of placement_group_bundles, where the replica is, has"


def faults(
    bundles: list[dict[str, Any]] | None, *, strategy: str | None = "STRICT_PACK", options: dict[str, Any] | None = ONE_OF_EACH
) -> str:
    said = {"placement_group_bundles": bundles, "placement_group_strategy": strategy, "ray_actor_options": options}
    return "; ".join(placement_faults({key: value for key, value in said.items() if value is not None}, at="ltx2.denoiser"))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_card_for_each_rank_is_right(count: int) -> None:
    assert faults([CARD] * count) == ""


def test_ranks_on_processors_alone_are_right() -> None:
    assert faults([{"CPU": 0.5}] * 2, options={"num_cpus": 0.5}) == ""


def test_without_bundles_there_is_nothing_to_say() -> None:
    assert faults(None, strategy=None, options=None) == ""
    assert faults(None, strategy=None, options={"num_gpus": 1}) == ""


def test_one_bundle_may_lie_anywhere() -> None:
    assert faults([CARD], strategy=None) == faults([CARD], strategy="SPREAD") == ""


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a replica without a card": (
        {"bundles": [CARD, CARD], "options": None},
        f"ltx2.denoiser.ray_actor_options.num_gpus is 0, and {FIRST} CPU: 1, GPU: 1; make it 1: the replica has what it asks for itself",
    ),
    "more cards than the bundle has": ({"bundles": [CARD, CARD], "options": {"num_gpus": 2}}, "num_gpus is 2, and the first of"),
    "a card that no bundle has": ({"bundles": [{"CPU": 1}, {"CPU": 1}]}, "num_gpus is 1, and the first of placement_group_bundles"),
    "no processor": (
        {"bundles": [{"GPU": 1}, {"GPU": 1}], "options": {"num_gpus": 1}},
        f"num_cpus is 1, and {FIRST} GPU: 1; make it at most 0, or say CPU: 1 in every bundle",
    ),
    "a rank without a card": (
        {"bundles": [CARD, {"CPU": 1}]},
        "bundles.1 has CPU: 1, and the first CPU: 1, GPU: 1; ranks share their work evenly: make all bundles alike",
    ),
    "ranks of different size": (
        {"bundles": [CARD, CARD, {"CPU": 1, "GPU": 2}]},
        "placement_group_bundles.2 has CPU: 1, GPU: 2; a rank works on one card: say GPU: 1, in a bundle for each card",
    ),
    "all cards in one bundle of several": (
        {"bundles": [{"CPU": 1, "GPU": 4}] * 2, "options": {"num_gpus": 4}},
        "placement_group_bundles.0 has CPU: 1, GPU: 4; a rank works on one card",
    ),
    "parts of cards": (
        {"bundles": [{"CPU": 1, "GPU": 0.5}] * 2, "options": {"num_gpus": 0.5}},
        "has CPU: 1, GPU: 0.5; a rank works on one card",
    ),
    "several nodes": (
        {"bundles": [CARD, CARD], "strategy": "SPREAD"},
        "placement_group_strategy is SPREAD, and ranks share their work on one node only; make it STRICT_PACK",
    ),
    "several nodes, by chance": ({"bundles": [CARD, CARD], "strategy": None}, "placement_group_strategy is not said, which is PACK"),
    "a strategy for nothing": (
        {"bundles": None},
        "placement_group_strategy is STRICT_PACK, and there are no placement_group_bundles; name them, or leave it out",
    ),
    "small letters": ({"bundles": [{"cpu": 1, "gpu": 1}] * 2}, "placement_group_bundles asks for cpu; to Ray it is CPU"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named_with_its_value_and_the_way_out(mistake: str) -> None:
    said, message = WRONG[mistake]
    assert message in faults(**said)


def test_a_config_is_refused_for_it_and_for_ranks_of_a_stage_that_works_alone(tmp_path: Path) -> None:
    for bundles, message in (([CARD, {"CPU": 1}], "make all bundles alike"), ([{"CPU": 1}] * 2, "miniature.denoiser works in one process")):
        config = yaml.safe_load(CONFIG.read_text())
        (denoiser,) = [stage for stage in config["applications"][0]["deployments"] if stage["name"] == "denoiser"]
        denoiser |= {"placement_group_bundles": bundles, "placement_group_strategy": "STRICT_PACK"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(ConfigError) as caught:
            check_config(tmp_path / "config.yaml")
        assert message in caught.value.message
