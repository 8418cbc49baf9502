"""the graph on labelled raylets, all stages at zero -> each in its pool, as many as the work wants, none when it is done, nothing lost

In this order on one cluster, which begins without the pool `refine`. `--log-cli-level=INFO` shows the times that docs/operations.md has.
"""

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.graph import PATIENCE
from tests.operate.cluster import POOLS, STAGES, PooledCluster, Sample, pooled_cluster, pooled_config

pytestmark = pytest.mark.timeout(2 * PATIENCE)

log = logging.getLogger(__name__)

# A draft of many steps: it is several times the work of its refinement, which has as many as ever.
JOB = {"prompt": "a red ball", "num_frames": 17, "size": "128x128", "num_inference_steps": 100}
BURST = 6
NEEDED = ("text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PooledCluster]:
    began = time.monotonic()
    pools = {pool: gpus for pool, gpus in POOLS.items() if pool != "refine"}
    with pooled_cluster(pooled_config(), pools=pools, data=tmp_path_factory.mktemp("data")) as running:
        while readiness(running).get("status") != "ready":
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.5)
        told("cluster ready", began)
        yield running


def told(what: str, began: float) -> None:
    log.info("%s: %.1f s", what, time.monotonic() - began)


def readiness(cluster: PooledCluster) -> dict[str, Any]:
    try:
        return httpx.get(f"{cluster.url}/readyz", timeout=30, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}


def ask(client: httpx.Client, **more: Any) -> str:
    return client.post("/v1/videos", json={**JOB, **more}).raise_for_status().json()["id"]


def await_videos(client: httpx.Client, ids: Sequence[str], *, drafted: dict[str, float] | None = None) -> dict[str, Mapping[str, Any]]:
    """As they are at their end; `drafted` notes when each replica was last seen to have made a draft."""
    videos: dict[str, Mapping[str, Any]] = {}
    seen, deadline = set[str](), time.monotonic() + PATIENCE
    while len(videos) < len(ids):
        assert time.monotonic() < deadline, videos
        for each in set(ids) - videos.keys():
            video = client.get(f"/v1/videos/{each}").json()
            for line in video["stages"]:
                if drafted is not None and line["stage"] == "denoiser" and each not in seen:
                    seen.add(each)
                    drafted[line["replica"]] = time.monotonic()
            if video["status"] not in ("queued", "in_progress"):
                videos[each] = video
        time.sleep(0.3)
    return videos


def assert_made_once(videos: Mapping[str, Mapping[str, Any]]) -> None:
    for video in videos.values():
        assert video["status"] == "completed", video
        assert {line["attempt"] for line in video["stages"]} == {1}
        assert set(Counter(line["step"] for line in video["stages"]).values()) == {1}


def assert_in_pools(cluster: PooledCluster, samples: Sequence[Sample]) -> None:
    """Every replica that was seen, on a node with its pool's label."""
    pool_of = cluster.ask("labels")
    for stage in NEEDED:
        assert {pool_of[node] for sample in samples for node in sample.nodes[stage]} == {STAGES[stage][0]}, stage


def test_from_zero_a_job_waits_for_a_pool_that_is_missing_by_name_and_is_made_when_it_comes(cluster: PooledCluster) -> None:
    assert set(cluster.sample().targets.values()) == {0} and readiness(cluster)["unplaced"] == {}
    with cluster.client() as client, cluster.watched() as samples:
        began = time.monotonic()
        video = ask(client, seed=1)
        while "miniature.refiner" not in (unplaced := readiness(cluster)["unplaced"]):
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.5)
        assert "no node of the cluster has the label aiprod-pool=refine" in unplaced["miniature.refiner"]
        told("missing pool named", began)
        cluster.ask("add", "refine", POOLS["refine"])
        assert_made_once(await_videos(client, [video]))
        told("first video from zero", began)
        assert readiness(cluster)["unplaced"] == {}
    assert_in_pools(cluster, samples)


def test_a_burst_has_as_many_replicas_as_its_work_wants_and_loses_nothing_when_they_go(cluster: PooledCluster) -> None:
    drafted: dict[str, float] = {}
    with cluster.client() as client, cluster.watched() as samples:
        began = time.monotonic()
        videos = await_videos(client, [ask(client, seed=seed) for seed in range(2, 2 + BURST)], drafted=drafted)
        ended = time.monotonic()
    told("the burst's videos", began)
    for before, sample in pairwise(samples):
        if sample.states != before.states:
            log.info("%.1f s: %s", sample.at - began, {stage: dict(states) for stage, states in sample.states.items() if states})
    assert_made_once(videos)
    assert_in_pools(cluster, samples)
    spent: Counter[str] = Counter()
    for line in (line for video in videos.values() for line in video["stages"]):
        spent[line["stage"]] += line["run_seconds"]
    most = {stage: max(sample.targets[stage] for sample in samples) for stage in NEEDED}
    assert most["denoiser"] >= 2 and spent["denoiser"] > 4 * spent["refiner"], (most, spent)
    assert most["refiner"] == 1 < STAGES["refiner"][2], (most, spent)
    # A stage that waits for what feeds it stays.
    there = [sample.targets["vae_decoder"] for sample in samples if sample.at < ended - 3]
    assert 0 not in there[there.index(1) :]
    # A replica that was on its way out made its draft to the end. What it tells is seen within 0.8 s.
    ending: dict[str, float] = {}
    for sample in samples:
        for replica in sample.stopping["denoiser"]:
            ending.setdefault(replica, sample.at)
    drained = [drafted[replica] - at for replica, at in ending.items() if replica in drafted]
    log.info("drained within %s s", [round(seconds, 1) for seconds in drained])
    assert max(drained) > 0.8


def test_while_the_dispatcher_is_silent_serves_own_count_of_calls_decides(cluster: PooledCluster) -> None:
    """Its last word is that there is no work, by which no stage would have more than one."""
    (dispatcher,) = cluster.deployments("api")["dispatcher"]["replicas"]
    os.kill(dispatcher["pid"], signal.SIGSTOP)
    try:
        began = time.monotonic()
        cluster.ask("call", JOB, BURST)
        cluster.wait_until(lambda sample: sample.targets["denoiser"] >= 2)
        told("more than one for calls of which the silent dispatcher does not know", began)
    finally:
        cluster.ask("cancel")
        os.kill(dispatcher["pid"], signal.SIGCONT)


def test_without_jobs_nothing_is_left(cluster: PooledCluster) -> None:
    began = time.monotonic()
    cluster.wait_until(lambda sample: not any(sample.targets.values()) and not any(sample.states.values()))
    told("to zero", began)
    assert readiness(cluster)["status"] == "ready"
