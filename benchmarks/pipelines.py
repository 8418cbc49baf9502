"""every pipeline, the same video -> network calls and seconds on one table -> results/pipelines.json

python -m benchmarks.pipelines [--repeats 5 --threads 2]
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.local import LocalStages, best_device, run_plan
from aiprod_components.media.encode import encode_mp4
from aiprod_components.miniature.world import Scene, Thing
from aiprod_components.pipelines import parse_request, pipelines_of
from aiprod_components.plan import Plan
from aiprod_components.training.dataset import FRAME_RATE, clips_of
from aiprod_components.training.quality import NUM_FRAMES, SIZE, png
from aiprod_components.values import Footage, Frames, Picture
from benchmarks.measuring import RESULTS, circumstances, medians

SCENE = Scene((Thing("ball", "red", "big", "moves right", "slowly", (-0.2, 0.0)),), "navy")
PROMPT = "a big red ball moves right slowly on a navy background"
BASELINE = "ti2vid_two_stages"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "pipelines.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    family = make_family("miniature")
    stages = LocalStages(family, device=best_device())
    plans = plans_of(family)
    # In turns, because a machine's pace drifts.
    times = medians(*(partial(run_plan, plan, stages=stages) for plan in plans.values()), repeats=options.repeats)
    seconds = {name: median for name, (median, _) in zip(plans, times, strict=True)}
    table = [_row(name, plan, family=family, seconds=seconds) for name, plan in plans.items()]
    result = {**circumstances("torch"), "threads": options.threads, "repeats": options.repeats, "baseline": BASELINE, "pipelines": table}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for row in table:
        sys.stdout.write(
            f"{row['pipeline']:24} {row['stage_1_calls']:3} + {row['stage_2_calls']} calls  {row['seconds']:.2f} s"
            f"  {row['of_baseline']:.2f} of {BASELINE}\n"
        )


def plans_of(family: Family) -> dict[str, Plan]:
    """The same scene by every pipeline, each with what it needs of it."""
    truth = clips_of([SCENE], num_frames=NUM_FRAMES, size=SIZE)
    pictures = [{"picture": Picture(png(truth[0, frame])), "frame": frame} for frame in (0, NUM_FRAMES - 1)]
    footage = Footage(encode_mp4(Frames(truth, FRAME_RATE)))
    needed: dict[str, dict[str, Any]] = {
        "ic_lora": {"reference_video": {"footage": footage}},
        "retake": {"reference_video": {"footage": footage}, "from_seconds": 0.5, "to_seconds": 1.5},
        "keyframe_interpolation": {"keyframes": pictures},
    }
    records = {name: {"pipeline": name, "prompt": PROMPT, "seed": 1, **needed.get(name, {})} for name in pipelines_of(family)}
    return {name: parse_request(record, family=family).plan(family) for name, record in records.items()}


def _row(name: str, plan: Plan, *, family: Family, seconds: dict[str, float]) -> dict[str, Any]:
    calls = dict.fromkeys(("denoiser", "refiner"), 0)
    for step in plan.steps:
        if step.call.stage in calls:
            calls[step.call.stage] += step.call.work(family.grid).network_calls
    return {
        "pipeline": name,
        "stage_1_calls": calls["denoiser"],
        "stage_2_calls": calls["refiner"],
        "seconds": seconds[name],
        "of_baseline": seconds[name] / seconds[BASELINE],
    }


if __name__ == "__main__":
    main()
