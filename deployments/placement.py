"""a deployment's placement group, as `serve_config.yaml` says it -> what in it would leave ranks apart, or without a card of their own

Serve puts a replica into the first bundle and gives it what `ray_actor_options` ask for, whatever the bundle holds; the other ranks have
their bundles whole.
"""

from collections.abc import Iterator, Mapping
from typing import Any

ONE_NODE = "STRICT_PACK"
# Ray takes any other name for a resource of somebody's own, and waits for it without end.
MEANT = {"cpu": "CPU", "num_cpus": "CPU", "gpu": "GPU", "num_gpus": "GPU"}
Bundle = dict[str, float]


def placement_faults(deployment: Mapping[str, Any], *, at: str) -> Iterator[str]:
    """Of a deployment at this place in the config."""
    bundles = [{name: float(amount) for name, amount in bundle.items()} for bundle in deployment.get("placement_group_bundles") or []]
    strategy = deployment.get("placement_group_strategy")
    if not bundles and strategy is not None:
        yield f"{at}.placement_group_strategy is {strategy}, and there are no placement_group_bundles; name them, or leave it out"
    if misnamed := [name for bundle in bundles for name in bundle if name in MEANT]:
        yield f"{at}.placement_group_bundles asks for {misnamed[0]}; to Ray it is {MEANT[misnamed[0]]}"
    elif bundles:
        yield from _replica_faults(bundles[0], deployment.get("ray_actor_options") or {}, at=at)
    if len(bundles) > 1:
        yield from _rank_faults(bundles, at=at)
        if strategy != ONE_NODE:
            said = "not said, which is PACK" if strategy is None else strategy
            yield f"{at}.placement_group_strategy is {said}, and ranks share their work on one node only; make it {ONE_NODE}"


def _replica_faults(bundle: Bundle, options: Mapping[str, Any], *, at: str) -> Iterator[str]:
    """Of the first bundle."""
    cpus, gpus = float(options.get("num_cpus", 1)), float(options.get("num_gpus", 0))
    first = f"the first of placement_group_bundles, where the replica is, has {_text(bundle)}"
    if gpus != (has := bundle.get("GPU", 0)):
        yield f"{at}.ray_actor_options.num_gpus is {gpus:g}, and {first}; make it {has:g}: the replica has what it asks for itself"
    if cpus > (has := bundle.get("CPU", 0)):
        yield f"{at}.ray_actor_options.num_cpus is {cpus:g}, and {first}; make it at most {has:g}, or say CPU: {cpus:g} in every bundle"


def _rank_faults(bundles: list[Bundle], *, at: str) -> Iterator[str]:
    """Each bundle is a rank's."""
    for number, bundle in enumerate(bundles):
        has = f"{at}.placement_group_bundles.{number} has {_text(bundle)}"
        if bundle.get("GPU", 0) not in (0, 1):
            yield f"{has}; a rank works on one card: say GPU: 1, in a bundle for each card"
        elif bundle != bundles[0]:
            yield f"{has}, and the first {_text(bundles[0])}; ranks share their work evenly: make all bundles alike"


def _text(bundle: Bundle) -> str:
    return ", ".join(f"{name}: {amount:g}" for name, amount in bundle.items()) or "nothing"
