"""`aiprod k8s …` -> the graph on a Kubernetes cluster: put there, looked at, listened to"""

import sys
import threading
from dataclasses import asdict
from queue import Queue
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiprod_client.exits import AsJson, err, group, print_json, told
from aiprod_components.errors import InvalidRequestError

if TYPE_CHECKING:  # it takes a second to import
    from aiprod_client.kubernetes import Kubernetes, Pod, Status

k8s = group("k8s", help="The graph on Kubernetes, by KubeRay.")

Context = Annotated[str | None, typer.Option(help="A context of the kubeconfig. [default: its current one]")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where the graph is.")]
Name = Annotated[str, typer.Option(help="The RayService's name.")]
CONTAINERS = {"head": "ray-head"}  # a pod's container by its pool; workers' is the default
HEAD = "head"


@k8s.command()
@told()
def apply(
    source: Annotated[str, typer.Argument(metavar="OVERLAY", help="A folder for kustomize, a file, or - for stdin.", show_default=False)],
    context: Context = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where what names no namespace goes.")] = "aiprod",
    force: Annotated[bool, typer.Option("--force", help="Take over fields that something else has set.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the cluster check it, and change nothing.")] = False,
) -> None:
    """Put manifests into the cluster, server-side; what is there already is brought up to date."""
    from aiprod_client.kubernetes import KubernetesError, connect, manifests_of

    manifests, cluster = manifests_of(source), connect(context)
    if missing := cluster.missing_secrets(manifests, namespace=namespace):
        listed = "; ".join(f"Secret {name} lacks {', '.join(keys)}" for name, keys in missing.items())
        raise KubernetesError(f"{listed}; pods would wait for them. docs/kubernetes.md says how they are made")
    for manifest in manifests:
        applied = cluster.apply(manifest, namespace=namespace, force=force, dry_run=dry_run)
        typer.echo(f"{applied.kind}/{applied.name} {applied.change}{' (dry run)' if dry_run else ''}")


@k8s.command()
@told()
def status(context: Context = None, namespace: Namespace = "aiprod", name: Name = "aiprod", as_json: AsJson = False) -> None:
    """Show whether the graph is ready: KubeRay's conditions, applications, pools and pods."""
    from aiprod_client.kubernetes import connect

    found = connect(context).status(name, namespace)
    if as_json:
        print_json({"ready": found.is_ready, **asdict(found)})
        return
    console = Console(soft_wrap=True)
    for table in (_conditions(found), _applications(found), _pools(found), _pods(found)):
        console.print(table)


@k8s.command()
@told()
def logs(
    who: Annotated[str, typer.Argument(help="A stage or another deployment, a pool, head, or a pod.", show_default=False)],
    context: Context = None,
    namespace: Namespace = "aiprod",
    name: Name = "aiprod",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="The last so many lines of each pod.")] = 100,
    container: Annotated[str | None, typer.Option(help="Such as autoscaler, beside the head. [default: Ray's]")] = None,
) -> None:
    """Print the logs of the pods that something runs on, each line after its pod's name. Stages of one pool may share a pod."""
    from aiprod_client.kubernetes import connect

    cluster = connect(context)
    pods = _pods_of(cluster, who, name=name, namespace=namespace)
    lines: Queue[tuple[str, str | BaseException] | None] = Queue()

    def read(pod: "Pod") -> None:
        chosen = container or CONTAINERS.get(pod.pool, "ray-worker")
        try:
            for line in cluster.log(pod.name, namespace, follow=follow, tail=tail, container=chosen):
                lines.put((pod.name, line))
        except RuntimeError as error:
            lines.put((pod.name, error))
        finally:
            lines.put(None)

    for pod in pods:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    try:
        _print_lines(lines, ends=len(pods))
    except KeyboardInterrupt:
        err.print("stopped listening")


def _print_lines(lines: "Queue[tuple[str, str | BaseException] | None]", *, ends: int) -> None:
    """Until every pod has ended. Raises what one of them raised, after the rest."""
    failed: BaseException | None = None
    while ends:
        told_by = lines.get()
        if told_by is None:
            ends -= 1
        elif isinstance(told_by[1], BaseException):
            failed = told_by[1]
        else:
            sys.stdout.write(f"{told_by[0]} | {told_by[1]}\n")
            sys.stdout.flush()
    if failed is not None:
        raise failed


def _pods_of(cluster: "Kubernetes", who: str, *, name: str, namespace: str) -> list["Pod"]:
    """Raises InvalidRequestError naming what there is."""
    there = cluster.pods(namespace, "app.kubernetes.io/part-of=aiprod,ray.io/cluster")
    pool = cluster.pool_of(who, name, namespace) or who
    if chosen := [pod for pod in there if who == pod.name or pool == pod.pool]:
        return chosen
    pools = ", ".join(dict.fromkeys(pod.pool for pod in there)) or "none"
    raise InvalidRequestError(f"{who} is no deployment, pool or pod of namespace {namespace}; pools with pods are {pools}", field="who")


def _conditions(found: "Status") -> Table:
    table = Table("condition", "", "", box=None)
    for kind, state in found.conditions.items():
        table.add_row(kind, state, escape(found.messages[kind]))
    if found.is_upgrading:
        table.add_row("Upgrading", "True", "a new cluster starts beside the one that serves")
    return table


def _applications(found: "Status") -> Table:
    table = Table("application", "deployment", "status", "", box=None)
    for application, told_of in found.applications.items():
        table.add_row(application, "", told_of.get("status", ""), escape(told_of.get("message") or ""))
        for deployment, each in (told_of.get("serveDeploymentStatuses") or {}).items():
            table.add_row("", deployment, each.get("status", ""), escape(each.get("message") or ""))
    return table


def _pools(found: "Status") -> Table:
    table = Table("pool", box=None)
    for number in ("ready", "wanted", "least", "most"):
        table.add_column(number, justify="right")
    for each in found.groups:
        table.add_row(each.name, *(str(number) for number in (each.ready, each.desired, each.minimum, each.maximum)))
    return table


def _pods(found: "Status") -> Table:
    table = Table("pod", "pool", "phase", "ready", "restarts", "node", "waits for", box=None)
    for pod in found.pods:
        facts = (pod.phase, "yes" if pod.is_ready else "no", str(pod.restarts), pod.node or "", escape(pod.waits_for or ""))
        table.add_row(pod.name, pod.pool, *facts)
    return table
