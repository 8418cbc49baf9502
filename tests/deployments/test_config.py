"""serve_config.yaml -> what is wrong with it"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.errors import ConfigError
from aiprod_components.stages import ALWAYS
from deployments.graph import check_config, default_api, default_family

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"


def deployments(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {deployment["name"]: deployment for application in config["applications"] for deployment in application["deployments"]}


def test_the_config_as_it_stands_is_accepted_and_names_every_stage_that_needs_nothing_of_the_user() -> None:
    assert set(deployments(check_config(CONFIG))) == {*ALWAYS, "family", "ingress", "dispatcher"}


def test_the_config_as_it_stands_fits_a_machine_of_two_cpus() -> None:
    cpus = [d["num_replicas"] * d["ray_actor_options"]["num_cpus"] for d in deployments(check_config(CONFIG)).values()]
    assert sum(cpus) <= 2


def test_the_config_as_it_stands_listens_on_loopback_alone() -> None:
    assert check_config(CONFIG)["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_every_deployment_bounds_its_queue_and_says_how_many_requests_it_takes() -> None:
    for deployment in deployments(check_config(CONFIG)).values():
        assert deployment["max_queued_requests"] > 0 and deployment["max_ongoing_requests"] > 0


def test_the_graph_is_there_without_its_builders_too() -> None:
    assert (default_family._bound_deployment.name, default_api._bound_deployment.name) == ("family", "ingress")


def stage(config: dict[str, Any]) -> dict[str, Any]:
    return deployments(config)["denoiser"]


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a misspelt option": (lambda c: stage(c).update(max_ongoing_request=1), "miniature.denoiser.max_ongoing_request is not an option"),
    "a misspelt actor option": (lambda c: stage(c).update(ray_actor_options={"num_cpu": 1}), "ray_actor_options.num_cpu is not an option"),
    "a misspelt scaling option": (
        lambda c: stage(c).update(num_replicas="auto", autoscaling_config={"min_replica": 0}),
        "miniature.denoiser.autoscaling_config.min_replica is not an option",
    ),
    "a misspelt user config": (lambda c: stage(c).update(user_config={"thread": 1}), "miniature.denoiser.user_config.thread"),
    "no threads": (lambda c: stage(c).update(user_config={"threads": 0}), "miniature.denoiser.user_config.threads"),
    "weights that are not there": (
        lambda c: stage(c)["user_config"].update(weights="/nowhere"),
        "miniature.denoiser.user_config.weights: /nowhere is no folder; name one with the denoiser",
    ),
    "another stage's weights": (
        lambda c: stage(c)["user_config"].update(weights=str(CONFIG.parent / "docs")),
        "miniature.denoiser.user_config.weights: " + str(CONFIG.parent / "docs/denoiser.safetensors") + " is missing",
    ),
    "no name of weights": (lambda c: stage(c)["user_config"].update(weights=""), "miniature.denoiser.user_config.weights"),
    "weights of an API": (
        lambda c: deployments(c)["dispatcher"].update(user_config={"weights": "x"}),
        "api.dispatcher.user_config.weights",
    ),
    "an unknown stage": (
        lambda c: stage(c).update(name="denoizer"),
        "miniature.denoizer is not a deployment; they are family,",
    ),
    "a misspelt top level": (lambda c: c.update(http_option={}), "config.http_option is not an option"),
    "a misspelt http option": (lambda c: c["http_options"].update(prot=1), "http_options.prot is not an option"),
    "an unknown builder": (lambda c: c["applications"][0].update(import_path="graph:family"), "the builders are deployments.graph:family"),
    "a misspelt argument": (lambda c: c["applications"][0].update(args={"name": "miniature", "wights": "x"}), "miniature.args.wights"),
    "an unknown family": (
        lambda c: c["applications"][0].update(args={"name": "mini"}),
        "family 'mini' is unknown; the families are",
    ),
    "a family without weights": (lambda c: c["applications"][0].update(name="aiprod", args={"name": "aiprod"}), "aiprod.args: "),
    "no API": (lambda c: c["applications"].pop(), "one application must be deployments.graph:api, at route_prefix /"),
    "an API elsewhere": (lambda c: c["applications"][1].update(route_prefix="/v2"), "at route_prefix /"),
    "an API without its family": (lambda c: c["applications"][1].update(args={"families": [{"name": "ltx"}]}), "no application's args"),
    "an application without a name": (lambda c: c["applications"][0].pop("name"), "a family's application bears its name"),
    "an API by another name": (lambda c: c["applications"][1].update(name="front"), "front.name must be 'api'"),
    "the world without keys": (
        lambda c: c["http_options"].update(host="0.0.0.0"),
        "http_options.host is 0.0.0.0, and api.args.keys is off",
    ),
    "a misspelt grpc option": (lambda c: c["grpc_options"].update(prt=1), "grpc_options.prt is not an option"),
    "a misspelt slot": (lambda c: deployments(c)["dispatcher"].update(user_config={"slot": 1}), "api.dispatcher.user_config.slot"),
    "an unknown watermark": (
        lambda c: [a["args"].update(watermark="stamp") for a in (c["applications"][0],)],
        "miniature.args: ",
    ),
    "no families": (lambda c: c["applications"][1].update(args={"families": None}), "api.args.families"),
    "no applications": (lambda c: c.pop("applications"), "is not a Ray Serve config"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_serve_would_pass_over_is_named(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    config = yaml.safe_load(CONFIG.read_text())
    make(config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError) as caught:
        check_config(tmp_path / "config.yaml")
    assert message in caught.value.message


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    for text in (b"applications: [", "applications: ä".encode("latin-1")):
        (tmp_path / "config.yaml").write_bytes(text)
        with pytest.raises(ConfigError, match="is not a Ray Serve config"):
            check_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        check_config(tmp_path / "absent.yaml")
