"""k8s/overlays -> every stage has a pool with room for it, at rest and at most; pods end, answer and are guarded as they should"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from aiprod_client.server import ENVIRONMENT
from aiprod_components.families import make_family
from aiprod_components.stages import STAGES, stages_of
from k8s.render import POOL
from tests.graph import ROOT
from tests.k8s.manifests import NAMES, Document, cluster, deployments, groups, manifests, of_kind, pod_templates, rayservice, serve_config

Shares = tuple[float, float]  # of CPUs and of GPUs


@pytest.fixture(params=NAMES)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return manifests(request.param)


def test_every_stage_of_the_family_is_there_and_grows_by_itself(documents: list[Document]) -> None:
    named = {"miniature": None, "aiprod": "random", "ltx2": None}
    family = serve_config(documents)["applications"][0]["name"]
    there = {each["name"]: each for each in deployments(documents) if each["name"] in STAGES}
    if family != "ltx2":  # its stages are in tests/ltx2/test_examples.py, with a folder
        assert set(there) == set(stages_of(make_family(family, weights=named[family])))
    for name, stage in there.items():
        scaling = stage["autoscaling_config"]
        assert "num_replicas" not in stage and 1 <= scaling["min_replicas"] <= scaling["max_replicas"], name
        assert stage["max_queued_requests"] > 0, name


@pytest.mark.parametrize("end", ["min", "max"])
def test_what_a_pool_is_to_hold_fits_its_pods_at_rest_and_at_most(documents: list[Document], end: str) -> None:
    """Packed as Ray packs, in either order; resources as Ray's autoscaler reads them from this very manifest."""
    for pool, (pod, pods) in ray_node_types(documents, end=end).items():
        wanted = sorted(shares_in(documents, pool, end=end))
        for order in (wanted, wanted[::-1]):
            assert len(packed(order, pod=pod)) <= pods, (pool, order, pod, pods)


def test_a_pool_has_room_for_a_replacement_before_a_pod_is_drained(documents: list[Document]) -> None:
    assert [name for name, group in groups(documents).items() if group["maxReplicas"] <= group["minReplicas"]] == []


def test_rays_autoscaler_reads_labels_and_sizes_of_every_pool(documents: list[Document]) -> None:
    types = node_types(documents)
    assert {name: each["labels"] for name, each in types.items() if name != "headgroup"} == {
        name: {POOL: name} for name in groups(documents)
    }
    assert types["headgroup"]["resources"]["CPU"] == 0  # no replica runs there
    for name, group in groups(documents).items():
        assert types[name]["idle_timeout_s"] == group["idleTimeoutSeconds"]


def test_a_pod_may_take_longer_to_end_than_any_replica_on_it(documents: list[Document]) -> None:
    longest = max(each["graceful_shutdown_timeout_s"] for each in deployments(documents))
    for name, group in groups(documents).items():
        pod = group["template"]["spec"]
        drained = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert longest < drained < pod["terminationGracePeriodSeconds"], name
    assert longest < rayservice(documents)["spec"]["rayClusterDeletionDelaySeconds"]


def test_the_command_before_a_pods_end_is_there() -> None:
    (script,) = {group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1] for group in all_groups()}
    assert (ROOT / script.removeprefix("/app/")).is_file()
    assert "COPY k8s/drain.sh" in (ROOT / "Dockerfile").read_text() and "ray stop" not in (ROOT / "k8s/drain.sh").read_text()


def test_ports_are_those_that_serve_listens_on_and_kuberay_makes_services_of(documents: list[Document]) -> None:
    config = serve_config(documents)
    listening = {"serve": config["http_options"]["port"], "serve-grpc": config["grpc_options"]["port"]}
    for name, pod in ray_pods(documents).items():
        ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        assert ports.items() >= listening.items() and ports["metrics"] == 8080, name
    service = {port["name"]: port for port in rayservice(documents)["spec"]["serveService"]["spec"]["ports"]}
    assert {name: port["targetPort"] for name, port in service.items()} == listening
    assert service["serve-grpc"]["appProtocol"] == "kubernetes.io/h2c"
    assert config["http_options"]["host"] == "0.0.0.0" and config["proxy_location"] == "EveryNode"


def test_probes_ask_the_node_whether_it_lives_and_the_proxy_whether_it_is_ready(documents: list[Document]) -> None:
    parameters = {name: group["rayStartParams"] for name, group in groups(documents).items()}
    for name, pod in ray_pods(documents).items():
        (container,) = pod["containers"]
        if name != "head":
            agent = int(parameters[name]["dashboard-agent-listen-port"])
            for probe in ("startupProbe", "livenessProbe"):
                assert container[probe]["httpGet"] == {"path": "/api/local_raylet_healthz", "port": agent}
            assert container["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8000}
        patience = container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"]
        assert patience >= 300, name  # a node that pulls an image of gigabytes is busy for minutes


def test_every_pod_is_confined(documents: list[Document]) -> None:
    for name, template in pod_templates(documents).items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is (name == "head"), name
        for guarded in (
            *(each["securityContext"] for each in pod["containers"]),
            cluster(documents)["autoscalerOptions"]["securityContext"],
        ):
            assert guarded == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
        for container in pod["containers"]:
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, name


def test_passwords_are_where_they_are_needed_and_nowhere_in_the_manifests(documents: list[Document]) -> None:
    holders = Counter(
        variable["name"]
        for pod in ray_pods(documents).values()
        for variable in pod["containers"][0].get("env", ())
        if "valueFrom" in variable
    )
    assert holders["PGPASSWORD"] == holders["AIPROD_PEPPER"] == 1
    api = {
        each["ray_actor_options"]["label_selector"][POOL] for each in deployments(documents) if each["name"] in ("ingress", "dispatcher")
    }
    assert api == {name for name, group in groups(documents).items() if "aiprod-api" in group["template"]["metadata"]["labels"]}
    assert of_kind(documents, "Secret") == []


def test_from_outside_only_the_ports_of_the_service_are_reached(documents: list[Document]) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(documents, "NetworkPolicy")}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = [rule["ports"] for policy in policies.values() for rule in policy.get("ingress", ()) if "from" not in rule]
    assert [[port["port"] for port in ports] for ports in open_to_all] == [[8000, 9000]]
    for policy in policies.values():
        assert all(rule for rule in [*policy.get("ingress", ()), *policy.get("egress", ())])  # an empty rule allows everything


def test_nobody_reaches_the_clouds_metadata_and_only_the_operator_s_own_pods_the_dashboard(documents: list[Document]) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(documents, "NetworkPolicy")}
    ways_out = [peer for policy in policies.values() for rule in policy.get("egress", ()) for peer in rule["to"]]
    blocks = [peer["ipBlock"] for peer in ways_out if "ipBlock" in peer]
    assert len(blocks) == 4 and all("169.254.0.0/16" in block["except"] for block in blocks)
    (operator,) = policies["operator-to-head"]["ingress"][0]["from"]
    assert operator["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}


@pytest.mark.parametrize("overlay", [name for name in NAMES if name != "kind"])
def test_traces_reach_a_collector_where_prometheus_is(overlay: str) -> None:
    (policy,) = [each for each in of_kind(manifests(overlay), "NetworkPolicy") if each["metadata"]["name"] == "ray-to-collector"]
    (rule,) = policy["spec"]["egress"]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in rule["ports"]] == [4318]


def test_jobs_are_kept_where_all_nodes_reach_them_and_who_asks_has_a_key(documents: list[Document]) -> None:
    (api,) = [each["args"] for each in serve_config(documents)["applications"] if each["name"] == "api"]
    assert api["keys"] is True and api["database"].startswith("postgresql") and api["artifacts"].startswith("s3://")


def test_budgets_cover_every_pool(documents: list[Document]) -> None:
    budgets = {
        each["spec"]["selector"]["matchLabels"][POOL]: each["spec"]["minAvailable"] for each in of_kind(documents, "PodDisruptionBudget")
    }
    assert budgets == {"head": 1} | {name: group["minReplicas"] for name, group in groups(documents).items() if group["minReplicas"]}


def test_the_cluster_is_as_operated(documents: list[Document]) -> None:
    spec, ray_cluster = rayservice(documents)["spec"], cluster(documents)
    assert spec["upgradeStrategy"] == {"type": "NewCluster"} and spec["excludeHeadPodFromServeSvc"] is True
    assert ray_cluster["authOptions"] == {"mode": "token"}
    assert (ray_cluster["enableInTreeAutoscaling"], ray_cluster["autoscalerOptions"]["version"]) == (True, "v2")
    assert ray_cluster["gcsFaultToleranceOptions"]["backend"] == "redis"
    assert f"ray[serve]>={ray_cluster['rayVersion'].rsplit('.', 1)[0]}" in (ROOT / "pyproject.toml").read_text()


def test_serve_is_set_up_as_aiprod_serve_does_it(documents: list[Document]) -> None:
    (data,) = [each["data"] for each in of_kind(documents, "ConfigMap")]
    assert data.items() >= {name: value for name, value in ENVIRONMENT.items() if name.startswith("RAY_SERVE_")}.items()


def all_groups() -> Iterable[Document]:
    return [group for name in NAMES for group in groups(manifests(name)).values()]


def ray_pods(documents: list[Document]) -> dict[str, Any]:
    return {name: pod["spec"] for name, pod in pod_templates(documents).items() if pod["metadata"]["labels"].get(POOL)}


def node_types(documents: list[Document]) -> dict[str, Any]:
    """What Ray's autoscaler makes of the RayCluster."""
    metadata = {"name": "aiprod", "namespace": "aiprod"}
    return _derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": cluster(documents)})["available_node_types"]


def ray_node_types(documents: list[Document], *, end: str) -> dict[str, tuple[Shares, int]]:
    """Pool -> what a pod of it has, and how many there are."""
    found = {name: each for name, each in node_types(documents).items() if name != "headgroup"}
    return {name: ((each["resources"]["CPU"], each["resources"].get("GPU", 0)), each[f"{end}_workers"]) for name, each in found.items()}


def shares_in(documents: list[Document], pool: str, *, end: str) -> Iterable[Shares]:
    for each in deployments(documents):
        options = each["ray_actor_options"]
        if options["label_selector"] == {POOL: pool}:
            count = each.get("num_replicas") or each["autoscaling_config"][f"{end}_replicas"]
            yield from [(options["num_cpus"], options.get("num_gpus", 0))] * count


def packed(shares: Iterable[Shares], *, pod: Shares) -> list[Shares]:
    """What is left of each pod, where every share goes to the fullest pod that has room for it."""
    left: list[Shares] = []
    for cpus, gpus in shares:
        room = [place for place, free in enumerate(left) if free[0] >= cpus - 1e-9 and free[1] >= gpus - 1e-9]
        place = min(room, key=lambda each: (left[each][1], left[each][0])) if room else len(left)
        free = left[place] if room else pod
        assert room or (free[0] >= cpus and free[1] >= gpus), f"{(cpus, gpus)} fits no pod of {pod}"
        left[place : place + 1] = [(free[0] - cpus, free[1] - gpus)]
    return left
