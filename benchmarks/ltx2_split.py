"""a tiny LTX-2, split into stages and whole -> milliseconds that splitting adds per stage and per hop -> results/ltx2_split.json

python -m benchmarks.ltx2_split [--repeats 9 --megabytes 2 4 8 13]

A tiny model makes ratios meaningless: what is measured is what is added, and that depends on the size of what is handed on, which stages
that only wait have as large as LTX-2 has it.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve

from aiprod_components.local import LocalStages, run_plan
from aiprod_components.media.encode import encode_chunks
from aiprod_components.pipelines import parse_request
from aiprod_components.plan import Plan
from aiprod_components.stages import stages_of
from aiprod_components.values import Waveform
from benchmarks.measuring import RESULTS, ROOT, circumstances, medians
from benchmarks.waiting import APPLICATION, Leg, deploy, listen, make_plan
from deployments.graph import family as build_family
from deployments.runner import find_stages
from deployments.runner import run_plan as run_on_serve
from deployments.settings import API, FamilyArgs
from tests.ltx2.folders import make_folder, make_lora
from tests.ltx2.whole import Shown, TwoStages

RESULT = RESULTS / "ltx2_split.json"
REQUEST = {"prompt": "a fox runs over snow", "seed": 5, "num_frames": 17, "height": 64, "width": 128}
# Of the distilled one every step waits for the one before: what a hop costs is not hidden behind other work.
REQUESTS = {
    "distilled": {**REQUEST, "pipeline": "distilled"},
    "ti2vid_two_stages": {**REQUEST, "pipeline": "ti2vid_two_stages", "negative_prompt": "blurry", "num_inference_steps": 4},
}
# What the steps of a distilled video of 1280x704 and 121 frames hand on, with the true checkpoint's text encoder.
LEGS = (
    Leg("prompt", (), 13.0),
    Leg("draft", ("prompt",), 1.8),
    Leg("doubled", ("draft",), 7.2),
    Leg("refined", ("prompt", "doubled"), 7.2),
    Leg("sound", ("refined",), 1.9),
    Leg("video", ("refined", "sound"), 0.0),
)
WAIT_SECONDS = 0.05  # longer than it takes to send the next call ahead, as a true stage is
PAUSE_SECONDS = 0.1  # until what was kept is written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[2, 4, 8, 13])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    torch.set_num_threads(1)  # as Ray gives a stage that asks for one CPU
    with tempfile.TemporaryDirectory() as folder:
        weights = make_folder(Path(folder) / "2.3", "2.3")
        make_lora(Path(folder) / "loras/distilled.safetensors", weights)
        args = FamilyArgs(name="ltx2", weights=str(weights), loras=str(Path(folder) / "loras"), variant="dev", precision="float32")
        measured = _measure(args, repeats=options.repeats, sizes=options.megabytes)
    load = {"before": before, "after": os.getloadavg()[0]}
    of_what = circumstances("ray", "torch", "diffusers", "transformers")
    result = {**of_what, "load_average": load, "repeats": options.repeats, "threads": 1, **measured}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for name, figures in measured["requests"].items():
        added = ", ".join(f"{key} {value:.2f}" for key, value in figures["added_milliseconds"].items())
        sys.stdout.write(f"{name}: {added}; frames are identical: {figures['frames_are_identical']}\n")
    sys.stdout.write(f"hops: {measured['hops']}\nvideo: {measured['video']['added_milliseconds']}\n")


def _measure(args: FamilyArgs, *, repeats: int, sizes: list[int]) -> dict[str, Any]:
    family: Any = args.make()
    stages = LocalStages(family, device=torch.device("cpu"))
    plans = {name: parse_request(request, family=family).plan(family) for name, request in REQUESTS.items()}
    wholes = {name: TwoStages(family, distilled=name == "distilled") for name in REQUESTS}
    local = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    # Else whatever runs beside the cluster goes before its replicas.
    os.environ.update({**local, "RAY_worker_niceness": "0"})
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        addresses: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder}
        ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, namespace="serve", **addresses)
        try:
            serve.start(proxy_location="Disabled")
            ways = _measure_ways(sizes, repeats=repeats)
            serve.run(build_family(args), name=family.name, route_prefix=None)
            handles = find_stages(family.name, stages=stages_of(family))
            walk = partial(run_on_serve, handles=handles)
            requests = {name: _compare(plan, name, wholes[name], stages, walk, repeats=repeats) for name, plan in plans.items()}
            return {"requests": requests, **ways}
        finally:
            serve.shutdown()
            ray.shutdown()


def _compare(plan: Plan, name: str, whole: TwoStages, stages: LocalStages, walk: Callable[[Plan], Any], *, repeats: int) -> dict[str, Any]:
    """The same video by diffusers' pipelines, by the stages one after the other here, and by the stages on Serve, in turns."""
    (monolith, shown), (here, video), (on_serve, sealed) = medians(
        lambda: _encoded(whole.run(plan, REQUESTS[name]), plan),
        lambda: run_plan(plan, stages=stages),
        lambda: asyncio.run(walk(plan)),
        repeats=repeats,
    )
    steps = len(plan.steps)
    return {
        "steps": steps,
        "monolith_seconds": monolith,
        "in_process_seconds": here,
        "on_serve_seconds": on_serve,
        "stage_seconds_on_serve": {receipt.step: receipt.run_seconds for receipt in sealed.receipts},
        "added_milliseconds": {
            "per_stage_in_process": 1000 * (here - monolith) / steps,
            "per_hop_on_serve": 1000 * (on_serve - here) / steps,
            "in_all": 1000 * (on_serve - monolith),
        },
        "frames_are_identical": shown.frames_digest == video.frames_digest == sealed.open().frames_digest,
    }


def _encoded(shown: Shown, plan: Plan) -> Shown:
    """As a file too: the stage that decodes also encodes."""
    video: Any = plan.steps[-1].call
    shape = (1, video.video.num_frames, video.video.height, video.video.width, 3)
    pixels = torch.frombuffer(bytearray(shown.frames), dtype=torch.uint8).reshape(shape)
    encode_chunks([pixels], frame_rate=video.video.frame_rate, sound=Waveform(shown.sound, 48_000))
    return shown


def _measure_ways(sizes: list[int], *, repeats: int) -> dict[str, Any]:
    """What lies between stages that wait: one further hop, by what it carries, and all of a distilled video, alone and as a job."""
    handles = deploy(LEGS)
    walk = partial(run_on_serve, handles=handles)
    with tempfile.TemporaryDirectory() as folder:
        jobs = listen(handles, artifacts=f"file://{folder}")
        hops = [{"megabytes": size, "milliseconds": _hop(size, walk, repeats=repeats)} for size in (0, *sizes)]
        plan = make_plan(LEGS, seconds=WAIT_SECONDS)
        (alone, _), (as_job, _) = medians(
            lambda: asyncio.run(walk(plan)), lambda: asyncio.run(walk(plan, order=jobs.next())), repeats=2 * repeats, pause=PAUSE_SECONDS
        )
        serve.delete(APPLICATION)  # what it keeps, it has written then
        serve.delete(API)
    waits = WAIT_SECONDS * len(LEGS)
    added = {"alone": 1000 * (alone - waits), "as_a_job": 1000 * (as_job - waits)}
    return {"hops": hops, "video": {"megabytes_by_step": {leg.step: leg.megabytes for leg in LEGS}, "added_milliseconds": added}}


def _hop(megabytes: float, walk: Callable[[Plan], Any], *, repeats: int) -> float:
    """Milliseconds that a second stage adds beyond its own time, when the first hands it so much."""
    first = Leg(LEGS[0].step, (), megabytes)
    second = Leg(LEGS[1].step, (first.step,), 0.0)
    # Alone the first one hands on nothing: a tensor is for a stage, not for who asks.
    alone, both = (make_plan(legs, seconds=WAIT_SECONDS) for legs in ((replace(first, megabytes=0.0),), (first, second)))
    (one, _), (two, _) = medians(lambda: asyncio.run(walk(alone)), lambda: asyncio.run(walk(both)), repeats=repeats, pause=PAUSE_SECONDS)
    return 1000 * (two - one - WAIT_SECONDS)


if __name__ == "__main__":
    main()
