"""figures and samples -> docs/quality.json, docs/quality.md and contact sheets

python -m aiprod_components.training.report [--count 100] [--only NAME ...]
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image, ImageDraw

from aiprod_components.families import make_family
from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.miniature.captions import LANGUAGES
from aiprod_components.miniature.world import SceneMix
from aiprod_components.training.quality import (
    Examiner,
    Sample,
    following,
    image_to_video,
    judged,
    reconstruction,
    refinement,
)
from aiprod_components.training.quality_page import render_page
from aiprod_components.training.quality_pipelines import canny, chained, keyframes, upsamplers
from aiprod_components.training.quality_plots import plot_curves
from aiprod_components.training.quality_sampling import guider_table, sampler_curves, schedule_table

DOCS = Path(__file__).parents[2] / "docs"
SHEETS = 6
SHEET_FRAMES = 9

# (examiner, count) -> figures, and the samples that they are of
Measure = Callable[..., tuple[dict[str, Any], list[Sample]]]


def _share(count: int, part: int) -> int:
    return max(count // part, 1)


def reconstruct(examiner: Examiner, count: int) -> dict[str, Any]:
    full = SceneMix(two_objects=0.5, patterns=1.0, cameras=0.5)
    return {
        "128x128 plain": reconstruction(examiner, size=128, mix=SceneMix(), count=count),
        "64x64 plain": reconstruction(examiner, size=64, mix=SceneMix(), count=count),
        "128x128 patterns, cameras": reconstruction(examiner, size=128, mix=full, count=count),
    }


def languages(examiner: Examiner, count: int) -> dict[str, Any]:
    return {language: _followed(examiner, count=_share(count, 5), language=language)[0] for language in LANGUAGES}


def samplers(examiner: Examiner, count: int) -> dict[str, Any]:
    figures = sampler_curves(examiner, count=_share(count, 5))
    plot_curves(figures, DOCS / "quality")
    return figures


def _with_sheets(name: str, measure: Measure, *, part: int = 1, shown: int = 2, **fields: Any) -> Callable[[Examiner, int], dict[str, Any]]:
    """A measure of a part of the clips, and sheets of the first of them."""

    def measured(examiner: Examiner, count: int) -> dict[str, Any]:
        figures, samples = measure(examiner, count=_share(count, part), **fields)
        _sheets(name, samples[:shown])
        return figures

    return measured


def _followed(examiner: Examiner, *, count: int, **fields: Any) -> tuple[dict[str, Any], list[Sample]]:
    samples = following(examiner, count=count, **fields)
    return judged(samples), samples


def _sheets(name: str, samples: list[Sample]) -> None:
    for number, sample in enumerate(samples, start=1):
        contact_sheet(sample).save(DOCS / "quality" / f"{name}_{number}.png")


MEASURES: dict[str, Callable[[Examiner, int], dict[str, Any]]] = {
    "reconstruction": reconstruct,
    "english": _with_sheets("sheet", _followed, shown=SHEETS),
    "unseen_combinations": lambda examiner, count: _followed(examiner, count=_share(count, 2), mix=SceneMix(pairs="unseen"))[0],
    "two_objects": _with_sheets("two_objects", _followed, part=2, mix=SceneMix(two_objects=1.0)),
    "patterns": _with_sheets("patterns", _followed, part=2, mix=SceneMix(patterns=1.0)),
    "distilled": _with_sheets("distilled", _followed, pipeline="distilled"),
    "eight_steps": lambda examiner, count: _followed(examiner, count=_share(count, 2), num_inference_steps=8)[0],
    "one_stage": lambda examiner, count: _followed(examiner, count=_share(count, 4), pipeline="ti2vid_one_stage")[0],
    "refinement": lambda examiner, count: refinement(examiner, count=_share(count, 2)),
    "image_to_video": lambda examiner, count: image_to_video(examiner, count=_share(count, 4)),
    "keyframes": _with_sheets("keyframes", keyframes, part=4),
    "canny": _with_sheets("canny", canny, part=4),
    "chained": _with_sheets("chained", chained, part=8),
    "samplers": samplers,
    "schedulers": lambda examiner, count: schedule_table(examiner, count=_share(count, 5)),
    "guiders": lambda examiner, count: guider_table(examiner, count=_share(count, 5)),
    "upsamplers": lambda examiner, count: upsamplers(examiner, count=_share(count, 4)),
    "languages": languages,
}


def contact_sheet(sample: Sample) -> Image.Image:
    """Nine frames in a row, under the prompt and what the judge missed."""
    picked = sample.frames[:: len(sample.frames) // (SHEET_FRAMES - 1)][:SHEET_FRAMES]
    row = Image.fromarray(rearrange(picked, "t h w c -> h (t w) c").contiguous().numpy())
    sheet = Image.new("RGB", (row.width, row.height + 30), "white")
    sheet.paste(row, (0, 30))
    missed = [slot for slot, right in sample.right.items() if not right]
    verdict = f"judge: {sample.refused or ('missed ' + ', '.join(missed) if missed else 'all right')}"
    ImageDraw.Draw(sheet).text((4, 2), f"{sample.caption.text}\n{verdict}", fill="black")
    return sheet


def digest_of_weights() -> str:
    """Of all of the miniature's shipped weights together that are seen in a video."""
    digest = hashlib.sha256()
    for file in sorted(SHIPPED_WEIGHTS.rglob("*.safetensors")):
        if file.stem == "preview":
            continue
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _figures_of(record: Path, *, weights: str) -> dict[str, Any]:
    """What was measured of these weights already; figures of others are let go."""
    known = json.loads(record.read_text()) if record.is_file() else {}
    return known if known.get("weights") == weights else {"weights": weights}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aiprod_components.training.report", description="Measure the miniature; write docs/quality.*"
    )
    parser.add_argument("--count", type=int, default=100, help="clips of the largest measure; the others take a share of it")
    parser.add_argument("--only", nargs="*", choices=MEASURES, default=list(MEASURES), help="measure these again, keep the rest")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    (DOCS / "quality").mkdir(parents=True, exist_ok=True)
    record = DOCS / "quality.json"
    figures = _figures_of(record, weights=digest_of_weights())
    examiner = Examiner(make_family("miniature"))
    for name in arguments.only:
        figures[name] = MEASURES[name](examiner, arguments.count)
        print(name, json.dumps(figures[name]))
        record.write_text(json.dumps(figures, indent=2) + "\n")
    (DOCS / "quality.md").write_text(render_page(figures, sheets=SHEETS))


if __name__ == "__main__":
    main()
