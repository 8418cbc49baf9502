"""`autoscaling_policy` in serve_config.yaml -> accepted, or what is wrong with it"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.errors import ConfigError
from aiprod_components.stages import STAGES
from deployments.scaling_args import POLICY, policy_faults
from deployments.settings import check_config

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serve_config.yaml"
POOLED = [*ROOT.glob("examples/clusters/*.yaml"), *ROOT.glob("k8s/overlays/*/serve_config.yaml")]
FEEDING = ("text_encoder", "vae_encoder", "audio_encoder")  # of whose steps none waits for another in the replica


def scaled() -> dict[str, Any]:
    """The config as it stands, its denoiser scaled by our policy and the other stages one each."""
    config = yaml.safe_load(CONFIG.read_text())
    family(config)["autoscaling_policy"] = {"policy_function": POLICY, "policy_kwargs": {"horizon_seconds": 20}}
    for stage in stages(config):
        del stage["num_replicas"]
        stage["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 1}
    denoiser(config)["autoscaling_config"] = {"min_replicas": 0, "max_replicas": 4}
    dispatcher(config).update(num_replicas=2, user_config={"slots": 2})
    return config


def family(config: dict[str, Any]) -> dict[str, Any]:
    return config["applications"][0]


def stages(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in family(config)["deployments"] if each["name"] in STAGES]


def denoiser(config: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in stages(config) if each["name"] == "denoiser")


def dispatcher(config: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in config["applications"][1]["deployments"] if each["name"] == "dispatcher")


def checked(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    return check_config(path)


@pytest.mark.parametrize("name", [POLICY, POLICY.replace(":", ".")])
def test_our_policy_is_accepted_for_a_family_by_both_ways_to_name_it(tmp_path: Path, name: str) -> None:
    config = scaled()
    family(config)["autoscaling_policy"]["policy_function"] = name
    assert checked(config, tmp_path) == config


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a misspelt argument": (
        lambda c: family(c)["autoscaling_policy"].update(policy_kwargs={"horizon": 20}),
        "miniature.autoscaling_policy.policy_kwargs.horizon is not an option; they are horizon_seconds, smoothing_seconds, stale_seconds",
    ),
    "no horizon": (
        lambda c: family(c)["autoscaling_policy"].update(policy_kwargs={"horizon_seconds": 0}),
        "miniature.autoscaling_policy.policy_kwargs.horizon_seconds is 0: Input should be greater than 0",
    ),
    "a misspelt key": (
        lambda c: family(c)["autoscaling_policy"].update(policy_args={}),
        "miniature.autoscaling_policy.policy_args is not an option; they are policy_function, policy_kwargs",
    ),
    "another policy": (
        lambda c: family(c)["autoscaling_policy"].update(policy_function="my.policies:Best"),
        f"miniature.autoscaling_policy.policy_function is 'my.policies:Best'; the policy for a family is {POLICY}",
    ),
    "the policy at one stage": (
        lambda c: denoiser(c)["autoscaling_config"].update(policy={"policy_function": POLICY}),
        "say it as miniature.autoscaling_policy, once",
    ),
    "nothing to scale": (
        lambda c: family(c).pop("deployments"),
        "miniature.autoscaling_policy has nothing to scale",
    ),
    "a stage that the policy would not see": (
        lambda c: denoiser(c).update(num_replicas=2) or denoiser(c).pop("autoscaling_config"),
        "miniature.denoiser.autoscaling_config is missing, and without it the policy does not know of the stage; for a fixed number",
    ),
    "more replicas than jobs at work": (
        lambda c: denoiser(c)["autoscaling_config"].update(max_replicas=5),
        "miniature.denoiser.autoscaling_config.max_replicas is 5, and the dispatchers have slots for 4 jobs: so many never work; raise",
    ),
    "no time to drain": (
        lambda c: denoiser(c).pop("graceful_shutdown_timeout_s"),
        "miniature.denoiser.graceful_shutdown_timeout_s is missing",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_policy_that_would_not_do_is_refused(tmp_path: Path, mistake: str) -> None:
    make, told = MISTAKES[mistake]
    config = scaled()
    make(config)
    with pytest.raises(ConfigError) as caught:
        checked(config, tmp_path)
    assert told in str(caught.value)


def test_stages_that_are_not_at_their_most_together_need_no_slot_for_each_replica(tmp_path: Path) -> None:
    config = scaled()
    refiner = next(each for each in stages(config) if each["name"] == "refiner")
    refiner["autoscaling_config"] = {"min_replicas": 0, "max_replicas": 4}
    assert checked(config, tmp_path)


@pytest.mark.parametrize("path", POOLED, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_that_are_shipped_show_the_policy_every_stage_and_give_fed_ones_time_to_drain(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert list(policy_faults(family(config), at="it", stages=STAGES)) == []
    short = {each["name"] for each in stages(config) if each["graceful_shutdown_timeout_s"] < 300}
    assert short <= set(FEEDING)
