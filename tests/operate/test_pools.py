"""examples/clusters and the GPU overlays -> every stage pinned to a pool that its head starts; who finds no node is named, and why"""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from aiprod_components.errors import ConfigError
from aiprod_components.families import make_family
from aiprod_components.stages import stages_of
from deployments import storage
from deployments.graph import check_config
from deployments.pools import matches, unplaced
from deployments.scaling_args import POLICY
from deployments.settings import ApiArgs
from k8s.render import OVERLAYS, POOL
from tests.graph import ROOT
from tests.ltx2.folders import make_folder
from tests.ltx2.test_examples import packed, with_weights

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples/clusters").glob("*.yaml"))}
STARTED = re.compile(
    r"^#.*ray start .*?--num-cpus (\d+)(?: --num-gpus (\d+))? --labels aiprod-pool=(\w+)(?:.*at most (\w+))?", re.MULTILINE
)
COUNTS = {"": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def ltx2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("ltx2") / "LTX-2", "2.3")


def config_of(example: str, weights: Path) -> dict[str, Any]:
    config = yaml.safe_load(EXAMPLES[example].read_text())
    return with_weights(config, weights) if "weights" in config["applications"][0]["args"] else config


def deployments(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for application in config["applications"] for each in application["deployments"]]


def most(deployment: dict[str, Any]) -> int:
    return (deployment.get("autoscaling_config") or {}).get("max_replicas") or deployment["num_replicas"]


def started(example: str) -> dict[str, tuple[float, float, int]]:
    """Pool -> what each of its nodes has of CPUs and GPUs, and how many there are at most, by the commands at the file's head."""
    return {
        pool: (float(cpus), float(gpus or 0), COUNTS[nodes]) for cpus, gpus, pool, nodes in STARTED.findall(EXAMPLES[example].read_text())
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_accepted_and_names_every_stage(example: str, ltx2_folder: Path, tmp_path: Path) -> None:
    config = config_of(example, ltx2_folder)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert ServeDeploySchema.model_validate(check_config(tmp_path / "config.yaml"))
    family = config["applications"][0]
    named = {each["name"] for each in family["deployments"]} - {"family"}
    assert named == set(stages_of(make_family(family["name"], weights=family["args"].get("weights"))))


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_replica_is_pinned_to_a_pool_whose_nodes_the_head_starts_with_room_for_all(example: str, ltx2_folder: Path) -> None:
    pools, cards, cores = started(example), defaultdict[str, list[float]](list), defaultdict[str, float](float)
    for deployment in deployments(config_of(example, ltx2_folder)):
        options = deployment["ray_actor_options"]
        assert options["label_selector"].keys() == {POOL}
        pool = options["label_selector"][POOL]
        cards[pool] += [options.get("num_gpus", 0)] * most(deployment)
        cores[pool] += options["num_cpus"] * most(deployment)
    assert cards.keys() == pools.keys()
    for pool, (cpus, gpus, nodes) in pools.items():
        shares = [share for share in cards[pool] if share]
        for order in (sorted(shares), sorted(shares, reverse=True)):
            assert len(packed(order)) <= gpus * nodes, (pool, order)
        assert cores[pool] <= cpus * nodes


@pytest.mark.parametrize("overlay", ["gpu", "gpu-ltx2"])
def test_the_gpu_overlays_scale_by_work_within_what_their_pools_hold(overlay: str) -> None:
    """At the most, pool by pool: one replica more of any scaled stage would not fit."""
    config = yaml.safe_load((OVERLAYS / overlay / "serve_config.yaml").read_text())
    assert config["applications"][0]["autoscaling_policy"]["policy_function"] == POLICY
    pools = {pool["name"]: pool for pool in yaml.safe_load((OVERLAYS / overlay / "pools.yaml").read_text())["pools"]}
    for stage in config["applications"][0]["deployments"]:
        if scaling := stage.get("autoscaling_config"):
            pool, share = pools[stage["ray_actor_options"]["label_selector"][POOL]], stage["ray_actor_options"]["num_gpus"]
            room = math.floor(1 / share + 1e-9) * pool["gpus"]
            assert scaling["max_replicas"] <= pool["max"] * room, stage["name"]
            assert scaling["min_replicas"] <= pool["min"] * room, stage["name"]


NODES = [
    {"Alive": True, "Labels": {POOL: "denoise"}, "Resources": {"CPU": 4.0, "GPU": 2.0}},
    {"Alive": True, "Labels": {}, "Resources": {"CPU": 4.0}},
    {"Alive": False, "Labels": {POOL: "refine"}, "Resources": {"CPU": 4.0, "GPU": 1.0}},
]


def told(options: dict[str, Any], *replicas: dict[str, Any]) -> dict[str, str]:
    refiner = {"deployment_config": {"ray_actor_options": options}, "replicas": list(replicas)}
    return dict(unplaced({"ltx2": {"deployments": {"refiner": refiner}}}, NODES, now=100.0))


def starting(since: float, **more: Any) -> dict[str, Any]:
    return {"state": "STARTING", "start_time_s": since, **more}


LACKING = {
    "no such label": ({"label_selector": {POOL: "refine"}}, "no node of the cluster has the label aiprod-pool=refine; start one with"),
    "too large": ({"num_gpus": 4, "label_selector": {POOL: "denoise"}}, "no node with aiprod-pool=denoise has GPU: 4"),
    "too large anywhere": ({"num_cpus": 8}, "no node has CPU: 8"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_stage_that_no_node_can_hold_is_named_at_once_with_what_it_lacks(case: str) -> None:
    options, said = LACKING[case]
    assert told(options, starting(99.9))["ltx2.refiner"].startswith(f"1 without a node: {said}")


def test_where_there_is_room_a_replica_is_only_starting() -> None:
    options = {"num_gpus": 1, "label_selector": {POOL: "denoise"}}
    assert told(options, starting(75.0)) == {}
    assert told(options, starting(50.0), starting(90.0))["ltx2.refiner"].startswith(
        "2 without a node: nodes with aiprod-pool=denoise are full"
    )
    assert told(options, starting(50.0, node_id="here")) == {}
    assert told({"label_selector": {POOL: "refine"}}, {"state": "RUNNING", "start_time_s": 1.0, "node_id": "here"}) == {}


SELECTORS = [("a", "a", True), ("a", "!a", False), ("b", "in(a, b)", True), ("c", "!in(a,b)", True), (None, "a", False), (None, "!a", True)]


@pytest.mark.parametrize(("value", "said", "holds"), SELECTORS)
def test_selectors_are_read_as_ray_reads_them(value: str | None, said: str, holds: bool) -> None:
    assert matches(value, said) is holds


def reach(monkeypatch: pytest.MonkeyPatch, addresses: list[str], **args: Any) -> Callable[[], None]:
    nodes = [{"Alive": address != "gone", "NodeManagerAddress": address} for address in addresses]
    monkeypatch.setattr(storage.ray, "nodes", lambda: nodes)
    monkeypatch.delenv("AIPROD_PEPPER", raising=False)
    return lambda: storage.check_reach(ApiArgs.model_validate({"families": [{"name": "miniature"}], **args}))


def test_nodes_of_one_machine_share_its_files_and_those_of_several_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, ["10.0.0.1", "10.0.0.1", "gone"])()
    with pytest.raises(ConfigError, match="2 machines and the job database is SQLite"):
        reach(monkeypatch, ["10.0.0.1", "10.0.0.2"])()
    with pytest.raises(ConfigError, match="artifacts lie in a local folder"):
        reach(monkeypatch, ["10.0.0.1", "10.0.0.2"], database="postgresql+psycopg://")()
    with pytest.raises(ConfigError, match="set AIPROD_PEPPER"):
        reach(monkeypatch, ["10.0.0.1", "10.0.0.2"], database="postgresql+psycopg://", artifacts="s3://bucket")()
