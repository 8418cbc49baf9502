"""`aiprod k8s …`, on a recorded API: no cluster was at hand"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from aiprod_client.cli import app
from tests.k8s.manifests import OVERLAYS, cluster, manifests, needs_kubectl, rayservice
from tests.k8s.recorded_api import RecordedApi, running

SECRET = dict.fromkeys(("PGPASSWORD", "AIPROD_PEPPER", "REDIS_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "c2VjcmV0")
CONDITIONS = [
    {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": "Number of serve endpoints is greater than 0"},
    {"type": "UpgradeInProgress", "status": "False", "reason": "NoPendingCluster", "message": "Active Ray cluster exists"},
]
STAGES = {
    "text_encoder": {"status": "HEALTHY"},
    "denoiser": {"status": "UPSCALING", "message": "1 replica more"},
}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedApi]:
    """A cluster with the Secret, and a kubeconfig that names it."""
    with running(RecordedApi()) as recorded:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": recorded.url}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        recorded.put("secrets", "aiprod", data=SECRET)
        yield recorded


@pytest.fixture
def kind(tmp_path: Path) -> str:
    """The overlay `kind`, built, as a file."""
    path = tmp_path / "kind.yaml"
    path.write_text(yaml.safe_dump_all(manifests("kind")))
    return str(path)


@pytest.fixture
def serving(api: RecordedApi) -> RecordedApi:
    """The overlay `kind`, as KubeRay would describe it with its head and two workers, one of them not scheduled."""
    documents = manifests("kind")
    told = {"rayClusterName": "aiprod-x1", "applicationStatuses": {"miniature": {"status": "RUNNING", "serveDeploymentStatuses": STAGES}}}
    api.put("rayservices", "aiprod", spec=rayservice(documents)["spec"], status={"conditions": CONDITIONS, "activeServiceStatus": told})
    api.put("rayclusters", "aiprod-x1", spec=cluster(documents))
    put_pod(api, "aiprod-x1-head", pool="head", ready=True)
    put_pod(api, "aiprod-x1-cpu-1", pool="cpu", ready=True)
    put_pod(api, "aiprod-x1-denoise-1", pool="denoise", ready=False)
    return api


def put_pod(api: RecordedApi, name: str, *, pool: str, ready: bool) -> None:
    labels = {"app.kubernetes.io/part-of": "aiprod", "ray.io/cluster": "aiprod-x1", "ray.io/group": pool}
    labels["ray.io/node-type"] = "head" if pool == "head" else "worker"
    container = "ray-head" if pool == "head" else "ray-worker"
    conditions = [{"type": "Ready", "status": str(ready)}]
    if not ready:
        conditions.append({"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: Insufficient cpu."})
    status = {"phase": "Running" if ready else "Pending", "conditions": conditions}
    api.put("pods", name, metadata={"labels": labels}, spec={"containers": [{"name": container}], "nodeName": "kind-1"}, status=status)
    api.logs[name, container] = f"one of {name}\ntwo of {name}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["k8s", *arguments], env={"COLUMNS": "200"})


def test_an_overlay_is_applied_on_the_server_with_the_rayservice_last(api: RecordedApi, kind: str) -> None:
    result = run("apply", kind)
    assert result.exit_code == 0, result.output
    applied = api.applied()
    assert len(applied) == len(manifests("kind")) and applied[0] == "namespaces/aiprod" and applied[-1] == "rayservices/aiprod"
    assert {query["fieldManager"] for method, _, query in api.requests if method == "PATCH"} == {"aiprod"}
    assert "RayService/aiprod created" in result.stdout
    assert "RayService/aiprod unchanged" in run("apply", kind).stdout


@needs_kubectl
def test_a_folder_is_built_by_kustomize(api: RecordedApi) -> None:
    assert run("apply", str(OVERLAYS / "gpu")).exit_code == 0
    assert "podmonitors/aiprod-ray" in api.applied()


def test_what_names_no_namespace_goes_where_it_is_said(api: RecordedApi, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {}}")
    assert run("apply", str(tmp_path / "map.yaml"), "--namespace", "there").exit_code == 0
    assert [path for method, path, _ in api.requests if method == "PATCH"] == ["/api/v1/namespaces/there/configmaps/one"]


def test_a_dry_run_changes_nothing(api: RecordedApi, kind: str) -> None:
    result = run("apply", kind, "--dry-run")
    assert result.exit_code == 0 and "RayService/aiprod created (dry run)" in result.stdout
    assert [key for key in api.objects if key[0] != "secrets"] == []


def test_fields_of_others_are_taken_over_only_by_force(api: RecordedApi, kind: str) -> None:
    api.owned_by_others.add("aiprod")
    refused = run("apply", kind)
    assert refused.exit_code == 1 and ".data.PGHOST; --force takes the fields over" in refused.stderr
    assert run("apply", kind, "--force").exit_code == 0


def test_without_its_secret_nothing_is_applied(api: RecordedApi, kind: str) -> None:
    del api.objects["secrets", "aiprod"]
    result = run("apply", kind)
    assert result.exit_code == 1 and api.applied() == []
    assert "Secret aiprod lacks AIPROD_PEPPER, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, PGPASSWORD, REDIS_PASSWORD" in result.stderr
    api.put("secrets", "aiprod", data={key: value for key, value in SECRET.items() if key != "AIPROD_PEPPER"})
    assert "lacks AIPROD_PEPPER;" in run("apply", kind).stderr


def test_who_may_not_read_secrets_may_apply(api: RecordedApi, kind: str) -> None:
    api.may_read_secrets = False
    assert run("apply", kind).exit_code == 0


def test_a_cluster_without_kuberay_says_how_to_install_it(api: RecordedApi, kind: str) -> None:
    api.absent.add("ray.io/v1")
    result = run("apply", kind)
    assert result.exit_code == 1 and "knows no RayService of ray.io/v1; install KubeRay" in result.stderr


@pytest.mark.parametrize(
    ("source", "said"), [("nowhere", "neither a folder nor a file"), ("text", "no Kubernetes object"), ("broken", "not YAML")]
)
def test_what_is_no_manifest_is_refused(api: RecordedApi, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "text").write_text("kind: Namespace\n")
    (tmp_path / "broken").write_text("{")
    result = run("apply", str(tmp_path / source))
    assert result.exit_code == 2 and said in result.stderr and api.applied() == []


def test_a_cluster_that_is_not_there_is_said_in_one_line(api: RecordedApi, tmp_path: Path, kind: str) -> None:
    text = (tmp_path / "kubeconfig").read_text().replace(api.url, "http://127.0.0.1:9")
    (tmp_path / "kubeconfig").write_text(text)
    result = run("status")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "is the cluster there" in result.stderr


def test_status_shows_conditions_applications_pools_and_pods(serving: RecordedApi) -> None:
    result = run("status")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1][:2] == ["Ready", "True"]
    assert ["denoiser", "UPSCALING", "1", "replica", "more"] in rows
    assert ["cpu", "1", "1", "1", "2"] in rows and ["denoise", "0", "1", "1", "3"] in rows
    (waiting,) = [line for line in result.stdout.splitlines() if "aiprod-x1-denoise-1" in line]
    assert "Pending" in waiting and "Insufficient cpu" in waiting


def test_status_as_json_is_for_scripts(serving: RecordedApi) -> None:
    facts = json.loads(run("status", "--json").stdout)
    assert facts["ready"] is True and facts["is_upgrading"] is False
    assert [pod["pool"] for pod in facts["pods"]] == ["head", "cpu", "denoise"]
    del serving.objects["rayservices", "aiprod"]
    missing = run("status", "--json")
    assert missing.exit_code == 1 and "has no RayService aiprod; `aiprod k8s apply` makes it" in missing.stderr


@pytest.mark.parametrize(
    ("who", "pod"),
    [("denoiser", "denoise-1"), ("dispatcher", "cpu-1"), ("denoise", "denoise-1"), ("head", "head"), ("aiprod-x1-cpu-1", "cpu-1")],
)
def test_logs_are_those_of_the_pods_that_something_runs_on(serving: RecordedApi, who: str, pod: str) -> None:
    result = run("logs", who, "--tail", "2")
    name = f"aiprod-x1-{pod}"
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"{name} | one of {name}", f"{name} | two of {name}"]
    (query,) = [query for _, path, query in serving.requests if path.endswith("/log")]
    assert query["tailLines"] == "2"


def test_logs_of_nobody_say_who_there_is(serving: RecordedApi) -> None:
    result = run("logs", "denoisers")
    assert result.exit_code == 2 and "pools with pods are head, cpu, denoise" in result.stderr
