"""The two commands around training: one writes weights, the other says how good they are."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.training import report

RECIPES = Path(report.__file__).parent / "recipes"


def test_the_report_measures_and_drops_what_was_measured_of_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "DOCS", tmp_path)
    (tmp_path / "quality.json").write_text(json.dumps({"weights": "of yesterday", "english": {"clips": 7}}))
    monkeypatch.setattr(sys, "argv", ["report", "--count", "1", "--only", "image_to_video"])
    report.main()
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert set(figures) == {"weights", "image_to_video"} and figures["image_to_video"]["clips"] == 1
    page = (tmp_path / "quality.md").read_text()
    assert figures["weights"] in page and "| 1 | " in page


@pytest.mark.parametrize("measure", ["keyframes", "canny", "chained", "upsamplers"])
def test_what_is_measured_of_a_pipeline_stands_on_the_page(measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "--count", "1", "--only", measure])
    report.main()
    figures = json.loads((tmp_path / "quality.json").read_text())[measure]
    numbers = (
        [value for value in figures.values() if isinstance(value, float)] if measure != "upsamplers" else [figures["upsampler"]["psnr"]]
    )
    page = (tmp_path / "quality.md").read_text()
    assert numbers and all(f"{number:.2f}" in page or f"{100 * number:.1f} %" in page or f"{number:.3f}" in page for number in numbers)


def test_a_recipe_runs_from_the_command_line_with_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = Path(shutil.copytree(SHIPPED_WEIGHTS, tmp_path / "weights"))
    before = (weights / "text_encoder.safetensors").read_bytes()
    places = ["--folder", str(tmp_path / "run"), "--output", str(weights)]
    monkeypatch.setattr(
        sys, "argv", ["training", str(RECIPES / "text_encoder.yaml"), *places, "schedule.steps=1", "batch=2", "pass_size=2"]
    )
    runpy.run_module("aiprod_components.training", run_name="__main__")
    assert (weights / "text_encoder.safetensors").read_bytes() != before
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
