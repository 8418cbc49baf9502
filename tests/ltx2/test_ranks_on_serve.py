"""a denoiser in a placement group of two bundles -> drafts as one process makes them, also after a rank was killed"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
import pytest

from aiprod_components.errors import UnavailableError
from aiprod_components.local import LocalStages
from aiprod_components.values import Latents
from deployments.orders import Order
from deployments.settings import FamilyArgs
from tests.graph import ENVIRONMENT, PATIENCE
from tests.ltx2.conftest import FolderOf
from tests.ltx2.rank_processes import CPU
from tests.ltx2.test_parallel import PROMPT, REQUESTS, TOLERANCE, call_of, family_of, latents_apart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE + 120)]

SHARE = {"CPU": 0.1}


def test_a_killed_rank_takes_its_replica_along_and_the_next_one_draws_the_same(folder_of: FolderOf) -> None:
    family = family_of(folder_of, "2.3")
    request = PROMPT | {"negative_prompt": "blurry", "num_inference_steps": 2} | REQUESTS["text"]
    call, alone = call_of("draft", request, LocalStages(family, device=CPU), family)
    loras = str(family.folder.parent / "loras")
    args = {"name": "ltx2", "weights": str(family.folder), "loras": loras, "variant": "dev", "precision": "float32"}
    # In a process of its own: this one may hold a cluster already.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        before, seconds, after, left = elsewhere.submit(serve_and_kill, args, call).result()
    assert latents_apart(before, alone) < TOLERANCE
    assert seconds < PATIENCE, "a call that loses a rank ends"
    assert latents_apart(after, alone) < TOLERANCE
    assert left == 0, "the ranks end with their replica"


def serve_and_kill(args: dict[str, Any], call: Any) -> tuple[Latents, float, Latents, int]:
    """A draft, how long the call after the kill took to end, the draft of the next replica, and how many ranks outlive it."""
    import ray
    from ray import serve
    from ray.exceptions import RayError

    from deployments.stage import StageReplica

    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        options: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder, "namespace": "serve", "log_to_driver": False}
        ray.init(address="local", num_cpus=3, include_dashboard=False, object_store_memory=200_000_000, **options)
        try:
            serve.start(proxy_location="Disabled")
            denoiser: Any = serve.deployment(
                StageReplica,
                name="denoiser",
                placement_group_bundles=[SHARE, SHARE],
                placement_group_strategy="STRICT_PACK",
                ray_actor_options={"num_cpus": SHARE["CPU"]},
                max_ongoing_requests=1,
                health_check_period_s=1,
                graceful_shutdown_timeout_s=5,
            )
            handle = serve.run(denoiser.bind(FamilyArgs.model_validate(args), "denoiser"), name="ltx2", route_prefix=None)
            before = drawn(handle, call)
            (follower,) = followers()
            follower.kill()
            started = time.monotonic()
            with pytest.raises((UnavailableError, RayError)):
                drawn(handle, call)
            seconds = time.monotonic() - started
            after = drawn_in_the_end(handle, call)
            serve.delete("ltx2")
            return before, seconds, after, len(followers())
        finally:
            serve.shutdown()
            ray.shutdown()


def drawn(handle: Any, call: Any) -> Latents:
    return handle.run.remote(Order("draft", call)).result(timeout_s=PATIENCE).open()


def drawn_in_the_end(handle: Any, call: Any) -> Latents:
    """As the runner goes on: what is unavailable is asked for again."""
    from ray.exceptions import RayError

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return drawn(handle, call)
        except (UnavailableError, RayError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def followers() -> list[psutil.Process]:
    """The ranks that this cluster's replicas have started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "RankActor" in " ".join(child.cmdline())]
