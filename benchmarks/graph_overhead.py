"""one request over HTTP and in this process, tensors from stage to stage, the time to get ready -> results/graph_overhead.json

python -m benchmarks.graph_overhead [--num-frames 5 --size 64x64 --steps 2 3 --repeats 1 --megabytes 1]
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import ray
import torch
from ray import serve

from aiprod_client.server import free_port, running_server
from aiprod_components.families import make_family
from aiprod_components.local import LocalStages, best_device
from aiprod_components.local import run_plan as run_here
from aiprod_components.plan import Plan
from benchmarks.big_tensors import deploy, make_plan
from benchmarks.measuring import RESULTS, ROOT, circumstances, medians
from deployments.api.body import Body
from deployments.api.wire import Wire
from deployments.graph import check_config
from deployments.runner import run_plan

CONFIG = ROOT / "serve_config.yaml"
RESULT = RESULTS / "graph_overhead.json"


def main() -> None:
    options = _options()
    fields = {"prompt": "a red ball moves right", "seed": 3, "size": options.size, "num_frames": options.num_frames}
    requests = [{**fields, "num_inference_steps": steps} for steps in options.steps]
    result: dict[str, Any] = {
        **circumstances("ray", "torch", "fastapi"),
        "repeats": options.repeats,
        **_measure_requests(requests, repeats=options.repeats, patience=options.patience),
        "hops": _measure_hops(options.megabytes, repeats=options.repeats),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for request in result["requests"]:
        seconds, ratio = request["http_seconds"], request["http_over_in_process"]
        steps = request["fields"]["num_inference_steps"]
        sys.stdout.write(f"{steps} steps: {seconds:.2f} s over HTTP, {ratio:.3f} times in process\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, default=33)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--patience", type=float, default=600.0, help="seconds for the graph to get ready")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def _measure_requests(requests: list[dict[str, Any]], *, repeats: int, patience: float) -> dict[str, Any]:
    """Guided two-stage requests, warm, over HTTP and in this process in turns, with the threads that the config gives every stage.

    In turns, because a machine's pace drifts by more than what is measured: what slows one, the idle graph included, slows the other.
    `in_process_alone_seconds` is this process without the graph beside it, before it starts and after it has ended.
    """
    config = check_config(CONFIG)
    settings = [d.get("user_config", {}) for app in config["applications"] for d in app["deployments"]]
    (threads,) = {setting["threads"] for setting in settings if "threads" in setting}
    torch.set_num_threads(threads)
    family = make_family("miniature")
    wire, stages = Wire({family.name: family}), LocalStages(family, device=best_device())
    plans = [wire.read(Body(fields, is_json=True)).plan for fields in requests]

    def alone() -> list[float]:
        return [medians(partial(run_here, plan, stages=stages), repeats=repeats)[0][0] for plan in plans]

    before = alone()
    numbers = count(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(CONFIG, port=free_port(), patience=patience, data=Path(folder)) as server,
        httpx.Client(timeout=None, trust_env=False) as client,
    ):

        def ask(fields: dict[str, Any]) -> httpx.Response:
            return client.post(f"{server.url}/v1/videos/sync", json=fields).raise_for_status()

        def ask_for_another(fields: dict[str, Any]) -> httpx.Response:
            """The server has what it made before."""
            number = next(numbers)
            return ask({**fields, "seed": number, "prompt": f"{fields['prompt']} {number}"})

        def measure(fields: dict[str, Any], plan: Plan) -> dict[str, Any]:
            here = partial(run_here, plan, stages=stages)
            (in_process, video), (over_http, answer) = medians(here, partial(ask_for_another, fields), repeats=repeats)
            return {
                "fields": fields,
                "in_process_seconds": in_process,
                "http_seconds": over_http,
                "http_over_in_process": over_http / in_process,
                "frames_are_identical": ask(fields).headers["x-aiprod-frames-sha256"] == video.frames_digest,
                "server_timing": answer.headers["server-timing"],
            }

        measured = [measure(fields, plan) for fields, plan in zip(requests, plans, strict=True)]
    both = zip(before, alone(), strict=True)
    return {
        "threads": threads,
        "seconds_to_ready": server.seconds_to_ready,
        "requests": [{**figures, "in_process_alone_seconds": list(pair)} for figures, pair in zip(measured, both, strict=True)],
    }


def _measure_hops(sizes: list[int], *, repeats: int) -> list[dict[str, float]]:
    """From the order to the answer of two stages: one hands over a tensor, sealed, and the other opens it and adds it up."""
    os.environ.update({"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        addresses: Any = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder}
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, namespace="serve", **addresses)
        try:
            serve.start(proxy_location="Disabled")
            handles = deploy()
            return [{"megabytes": size, "seconds": _hop(size, handles=handles, repeats=repeats)} for size in (0, *sizes)]
        finally:
            serve.shutdown()
            ray.shutdown()


def _hop(megabytes: int, *, handles: dict[str, Any], repeats: int) -> float:
    plan = make_plan(megabytes)
    ((seconds, _),) = medians(lambda: asyncio.run(run_plan(plan, handles=handles)), repeats=repeats)
    return seconds


if __name__ == "__main__":
    main()
