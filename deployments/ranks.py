"""a replica's placement group -> the replica in its first bundle, an actor that follows it in each of the others

`serve_config.yaml` says how many share a stage: `placement_group_bundles: [{CPU: 1, GPU: 1}, {CPU: 1, GPU: 1}]`, `placement_group_strategy:
STRICT_PACK`, and `ray_actor_options: {num_cpus: 1, num_gpus: 1}` for the replica, which is in the first.
"""

import os
import threading
import traceback
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from aiprod_components.errors import ConfigError, UnavailableError
from aiprod_components.local import best_device
from aiprod_components.stages.ranks import Following, Place, Ranks, Recipe
from deployments.placement import ONE_NODE


def ranks_here() -> Ranks | None:
    """One for each bundle of the placement group that this process is in; None: it works alone. Raises ConfigError when it spans nodes."""
    group = get_current_placement_group() if ray.is_initialized() else None
    if group is None or group.bundle_count == 1:
        return None
    if (strategy := placement_group_table(group)["strategy"]) != ONE_NODE:
        raise ConfigError(f"placement_group_strategy is {strategy}, and ranks share their work on one node only; make it {ONE_NODE}")
    return Ranks(group.bundle_count, partial(RankHold, group))


class RankActor:
    """One rank other than 0."""

    def __init__(self, recipe: Recipe, place: Place) -> None:
        self._following = Following(recipe, place, device=best_device())

    def tell(self, method: str, *arguments: Any) -> None:
        is_well = False
        try:
            getattr(self._following, method)(*arguments)
            is_well = True
        finally:
            if not is_well:  # an actor outlives its errors, and the other ranks would wait for it
                traceback.print_exc()
                os._exit(1)

    def be(self) -> None:
        """Ends with the process."""
        threading.Event().wait()


class RankHold:
    """Rank 0's hold on an actor. It dies with the replica, which owns it."""

    def __init__(self, group: PlacementGroup, recipe: Recipe, place: Place) -> None:
        share = group.bundle_specs[place.rank]
        remote: Any = ray.remote
        actor = remote(concurrency_groups={"being": 1})(RankActor).options(
            num_cpus=share.get("CPU", 0),
            num_gpus=share.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place.rank),
        )
        self._actor: Any = actor.remote(recipe, place)
        self._being = self._actor.be.options(concurrency_group="being").remote()
        self._asked = [self._actor.__ray_ready__.remote()]

    def tell(self, method: str, *arguments: Any) -> None:
        self._asked.append(self._actor.tell.remote(method, *arguments))

    def settle(self, timeout: float | None) -> None:
        try:
            ray.get(self._asked, timeout=timeout)
        except GetTimeoutError as error:
            raise UnavailableError(f"no answer within {timeout} s") from error
        except RayError as error:
            raise UnavailableError(f"its process has ended: {error}") from error
        self._asked = []

    def wait_for_end(self) -> None:
        ray.wait([self._being])

    def end(self) -> None:
        ray.kill(self._actor)
