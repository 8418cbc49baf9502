"""a serve config and a plan -> the config with what was planned, accepted as it stands"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aiprod_components.errors import ConfigError, InvalidRequestError
from deployments.capacity.model import UNLIMITED
from deployments.capacity.plan import Plan, make_plan
from deployments.capacity.report import sizes_of
from deployments.capacity.served import Served, Sizes, read_served, with_sizes, write_config
from deployments.capacity.slo import parse_slo
from deployments.settings import check_config, load_config
from tests.capacity.settings import STAGES, cpu_pools, gpu_pools, setting, traffic
from tests.graph import ROOT

BASE = ROOT / "serve_config.yaml"
EXAMPLES = ROOT / "examples/capacity"


@pytest.fixture(scope="module")
def served() -> Served:
    return read_served(BASE)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(setting(of=traffic(seconds=120)), parse_slo("p95=12s"))


@pytest.fixture(scope="module")
def path(served: Served, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is planned is written."""
    path = tmp_path_factory.mktemp("written") / "serve_config.yaml"
    write_config(with_sizes(served, sizes_of(plan), gpu_pools()), path, comment="Written.\nBy a test.")
    return path


@pytest.fixture(scope="module")
def config(path: Path) -> dict[str, Any]:
    """The same, as it is read from the file."""
    return check_config(path)


def deployment(config: dict[str, Any], application: str, name: str) -> dict[str, Any]:
    (found,) = [each for app in config["applications"] if app["name"] == application for each in app["deployments"] if each["name"] == name]
    return found


def sizes(replicas: int = 1, *, at_once: int = 2) -> Sizes:
    keys = [("miniature", stage) for stage in STAGES]
    return Sizes(dict.fromkeys(keys, replicas), dict.fromkeys(keys, 1.0), dict.fromkeys(keys, 1), at_once)


def test_what_is_written_is_accepted_and_says_what_was_planned(config: dict[str, Any], plan: Plan, path: Path) -> None:
    for (family, stage), count in zip(plan.setting.deployments, plan.replicas, strict=True):
        assert deployment(config, family, stage)["num_replicas"] == count
    decoder = deployment(config, "miniature", "vae_decoder")
    assert decoder["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5, "label_selector": {"aiprod-pool": "decode"}}
    assert decoder["user_config"] == {"threads": 3}
    assert path.read_text().startswith("# Written.\n# By a test.\n\n")


def test_what_the_plan_says_nothing_of_stays(config: dict[str, Any]) -> None:
    before, after = yaml.safe_load(BASE.read_text()), config
    assert after["http_options"] == before["http_options"] and after["grpc_options"] == before["grpc_options"]
    assert deployment(after, "miniature", "vae_encoder") == deployment(before, "miniature", "vae_encoder")
    assert deployment(after, "api", "ingress") == deployment(before, "api", "ingress")
    kept = deployment(after, "miniature", "denoiser")
    assert kept["health_check_timeout_s"] == 60 and kept["max_ongoing_requests"] == 1 and kept["graceful_shutdown_timeout_s"] == 300


def test_what_was_scaled_by_itself_has_the_planned_replicas(tmp_path: Path, plan: Plan) -> None:
    scaled = yaml.safe_load(BASE.read_text())
    family, _ = scaled["applications"]
    family["autoscaling_policy"] = {"policy_function": "deployments.autoscaling:WorkPolicy"}
    for stage in family["deployments"]:
        if stage["name"] != "family":
            stage.pop("num_replicas", None)
            stage |= {"autoscaling_config": {"min_replicas": 1, "max_replicas": 2}, "graceful_shutdown_timeout_s": 300}
    dispatcher = deployment(scaled, "api", "dispatcher")
    dispatcher.pop("num_replicas", None)
    dispatcher["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 2}
    base, path = tmp_path / "scaled.yaml", tmp_path / "config.yaml"
    base.write_text(yaml.dump(scaled))
    write_config(with_sizes(read_served(base), sizes_of(plan), gpu_pools()), path, comment="Written.")
    config = load_config(path)
    for name, application in (("denoiser", "miniature"), ("dispatcher", "api")):
        assert "autoscaling_config" not in deployment(config, application, name)
    assert deployment(config, "miniature", "vae_encoder")["autoscaling_config"]
    assert "autoscaling_policy" not in config["applications"][0]


def test_there_are_slots_for_the_jobs_at_once_and_room_in_every_queue_for_them(config: dict[str, Any], plan: Plan) -> None:
    peak = plan.verdict.outcome.peak
    slots = deployment(config, "api", "dispatcher")["user_config"]["slots"]
    assert slots >= peak > 2
    assert all(deployment(config, "miniature", stage)["max_queued_requests"] >= slots for stage in STAGES)


def test_many_jobs_at_once_have_several_dispatchers(served: Served) -> None:
    config = with_sizes(served, sizes(at_once=4000), gpu_pools())
    dispatcher = deployment(config, "api", "dispatcher")
    assert (dispatcher["num_replicas"], dispatcher["user_config"]["slots"]) == (5, 1000)


def test_where_cores_are_shared_slots_and_places_stay_as_they_are(served: Served) -> None:
    config = with_sizes(served, sizes(), cpu_pools())
    assert served.slots == 2 and deployment(config, "api", "dispatcher")["user_config"]["slots"] == 2
    assert deployment(config, "miniature", "denoiser")["ray_actor_options"] == {"num_cpus": 0.1}


def test_a_long_step_has_time_to_end_when_its_replica_is_taken_away(served: Served) -> None:
    slow = sizes()
    config = with_sizes(served, Sizes(slow.replicas, dict.fromkeys(slow.seconds, 170.0), slow.visits, 2), gpu_pools())
    assert deployment(config, "miniature", "vae_decoder")["graceful_shutdown_timeout_s"] == 340


def test_autoscaling_and_missing_stages_give_way_to_the_plan() -> None:
    base = yaml.safe_load(BASE.read_text())
    (family,) = [app for app in base["applications"] if app["name"] == "miniature"]
    family["deployments"] = [
        {"name": "denoiser", "autoscaling_config": {"min_replicas": 1, "max_replicas": 4}, "ray_actor_options": {"accelerator_type": "L4"}}
    ]
    config = with_sizes(Served(base, {}, {}, 2), sizes(3), gpu_pools())
    denoiser = deployment(config, "miniature", "denoiser")
    assert denoiser["num_replicas"] == 3 and "autoscaling_config" not in denoiser
    assert "accelerator_type" not in denoiser["ray_actor_options"]
    assert deployment(config, "miniature", "refiner")["num_replicas"] == 3
    assert base["applications"][0]["deployments"][0]["autoscaling_config"]


def test_a_family_whose_folder_is_not_here_is_taken_for_what_its_config_says() -> None:
    served = read_served(ROOT / "examples/ltx2/l4-h100.yaml")
    assert served.absent == {"ltx2": "/models/LTX-2.3-distilled is not here; taken for LTX-2 2.3, distilled"}
    assert served.families["ltx2"].is_distilled and served.slots == 8


def test_slots_of_as_many_dispatchers_as_it_takes_are_planned(tmp_path: Path) -> None:
    base = yaml.safe_load(BASE.read_text())
    deployment(base, "api", "dispatcher")["num_replicas"] = "auto"
    path = tmp_path / "auto.yaml"
    path.write_text(yaml.dump(base))
    auto = read_served(path)
    assert auto.slots == UNLIMITED
    dispatcher = deployment(with_sizes(auto, sizes(at_once=8), cpu_pools()), "api", "dispatcher")
    assert (dispatcher["num_replicas"], dispatcher["user_config"]["slots"]) == (1, 10)


def test_ranks_are_not_written_as_one_process() -> None:
    base = yaml.safe_load(BASE.read_text())
    deployment(base, "miniature", "denoiser")["placement_group_bundles"] = [{"CPU": 1, "GPU": 1}] * 2
    with pytest.raises(InvalidRequestError, match=r"^config: miniature\.denoiser has placement_group_bundles.*leave --output out"):
        with_sizes(Served(base, {}, {}, 2), sizes(), gpu_pools())


@pytest.mark.parametrize(
    ("application", "name", "change", "told"),
    [
        ("miniature", None, {"args": {"name": "miniature", "weigths": "random"}}, r"miniature\.args\.weigths: Extra inputs"),
        ("miniature", None, {"args": {}}, r"miniature\.args\.name: Field required"),
        ("api", "dispatcher", {"user_config": {"slots": 0}}, r"api\.dispatcher\.user_config\.slots: Input should be greater"),
    ],
)
def test_a_fault_in_a_config_is_named(tmp_path: Path, application: str, name: str | None, change: dict[str, Any], told: str) -> None:
    base = yaml.safe_load(BASE.read_text())
    (whole,) = [each for each in base["applications"] if each["name"] == application]
    (whole if name is None else deployment(base, application, name)).update(change)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.dump(base))
    with pytest.raises(ConfigError, match=told):
        read_served(path)


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_served(tmp_path / "absent.yaml")
    (tmp_path / "config.yaml").write_text("applications: 3")
    with pytest.raises(ConfigError, match="is not a Ray Serve config"):
        read_served(tmp_path / "config.yaml")
