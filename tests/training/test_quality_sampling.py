"""The measures of samplers and guiders compare like with like, and what they found can be drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.samplers import SAMPLERS
from aiprod_components.diffusion.schedulers import SCHEDULERS
from aiprod_components.families import make_family
from aiprod_components.training import quality_plots, quality_sampling
from aiprod_components.training.quality import Examiner
from aiprod_components.training.quality_plots import ERRORS, JUDGED, LINES, plot_curves
from aiprod_components.training.quality_sampling import (
    Drafts,
    Way,
    distances,
    guidance_settings,
    guider_table,
    projecting,
    sampler_curves,
    saturation,
    schedule_table,
    skipping,
    ways_within,
)

GUIDED = Guidance(3.0)


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    family = make_family("miniature")
    return Examiner(replace(family, sampling=replace(family.sampling, guidance=Guidance(3.0))))


@pytest.fixture(autouse=True)
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_sampling, "NUM_FRAMES", 9)
    monkeypatch.setattr(quality_sampling, "REFERENCE_STEPS", 8)
    quality_sampling.drafts_of.cache_clear()


def some_figures() -> dict[str, Any]:
    def point(calls: int) -> dict[str, Any]:
        return {"steps": calls // 2, "network_calls": calls, "error_median": 1 / calls, "attributes_legible": 0.9, "attributes_right": 0.5}

    # Each on a height of its own: a line that lies under another cannot be seen.
    curves = {
        name: [{**point(calls), "error_median": (number + 1) / calls, "attributes_right": 0.1 * (number + 1)} for calls in (8, 40)]
        for number, name in enumerate(LINES)
    }
    return {"reference": {"sampler": "heun", **point(398)}, "curves": curves}


def test_a_budget_is_spent_on_the_steps_that_come_nearest(examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_sampling, "REFERENCE_STEPS", 50)
    drafts = Drafts(examiner, count=1)
    assert [way.steps for way in ways_within(drafts, sampler="euler", budgets=(8, 20, 80))] == [4, 10, 40]
    # Two passes of guidance, asked twice in each step but the last: 4 n - 2.
    heun = ways_within(drafts, sampler="heun", budgets=(10, 39, 1))
    assert [(way.steps, drafts.network_calls(way)) for way in heun] == [(3, 10), (10, 38), (1, 2)]


def test_drafts_are_the_same_in_batches_of_any_size_and_differ_from_each_other(examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    drafts = Drafts(examiner, count=3)
    together = drafts.latents(Way(GUIDED, 2))
    monkeypatch.setattr(quality_sampling, "BATCH", 2)
    torch.testing.assert_close(drafts.latents(Way(GUIDED, 2)), together, atol=1e-3, rtol=1e-3)
    assert float(distances(together[:1], together[1:2])) > 0.1


def test_more_steps_come_nearer_to_the_reference(examiner: Examiner):
    drafts = Drafts(examiner, count=1)
    one, many = (float(distances(drafts.latents(Way(GUIDED, steps)), drafts.reference)) for steps in (1, 12))
    assert 0 < many < one / 2


def test_a_distance_is_each_drafts_own():
    reference = torch.zeros(2, 1, 1, 2, 2)
    ours = torch.stack([torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), -1.5)])
    assert distances(ours, reference).tolist() == [0.5, 1.5]


def test_grey_has_no_saturation_and_pure_red_has_all_of_it():
    grey, red = torch.full((1, 1, 2, 2, 3), 90), torch.tensor([255, 0, 0]).expand(1, 1, 2, 2, 3)
    assert saturation(grey.to(torch.uint8)) == 0
    assert saturation(torch.cat([grey, red]).to(torch.uint8)) == pytest.approx(0.5)


def test_every_deterministic_sampler_has_a_curve(examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_sampling, "BUDGETS", (2, 6))
    monkeypatch.setattr(quality_sampling, "COMPARED", (("euler", 3), ("euler", 2)))
    figures = sampler_curves(examiner, count=1)
    assert set(figures["curves"]) == set(SAMPLERS) - {"euler_ancestral"} == set(LINES)
    assert figures["reference"]["error"] == 0 and figures["reference"]["network_calls"] == 30
    assert [point["network_calls"] for point in figures["curves"]["euler"]] == [2, 6]
    assert [point["network_calls"] for point in figures["curves"]["res_2s"]] == [2, 6]
    assert figures["comparison"]["euler 3 steps"] == figures["curves"]["euler"][1]
    assert figures["comparison"]["euler 2 steps"]["network_calls"] == 4
    # Of one draft, mean and median are the same.
    assert all(point["error"] == point["error_median"] for point in figures["comparison"].values())
    points = [point for curve in figures["curves"].values() for point in curve]
    assert all(point["error"] > 0 and 0 <= point["attributes_right"] <= point["attributes_legible"] <= 1 for point in points)


def test_every_scheduler_is_measured_at_both_lengths(examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_sampling, "SCHEDULED_STEPS", (2, 3))
    rows = schedule_table(examiner, count=1)["schedulers"]
    assert set(rows) == set(SCHEDULERS)
    assert all([row["network_calls"] for row in lengths.values()] == [4, 6] for lengths in rows.values())
    assert len({lengths["2"]["error"] for lengths in rows.values()}) == len(SCHEDULERS)


def test_guidance_is_measured_with_the_block_and_the_bound_that_were_tried_best(examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality_sampling, "GUIDED_STEPS", 1)
    monkeypatch.setattr(quality_sampling, "THRESHOLDS", (0.0, 0.1))
    figures = guider_table(examiner, count=1)
    block, bound = figures["skipped_block"], figures["threshold"]
    assert set(block["tried"]) == {"0", "1", "2", "3", "4"} and block["chosen"] in block["tried"]
    assert set(bound["tried"]) == {"0", "0.1"} and bound["chosen"] in bound["tried"]
    calls = {name: row["network_calls"] for name, row in figures["settings"].items()}
    assert calls["none"] == 1 and calls["CFG 3"] == calls["APG 6"] == 2 and calls[f"CFG 3 + STG 1 in block {block['chosen']}"] == 3
    assert all(row["saturation"] > 0 for row in figures["settings"].values())


def test_what_is_tried_is_chosen_by_what_is_right_then_by_what_is_legible():
    tried = {
        "a": {"attributes_right": 0.5, "attributes_legible": 1.0},
        "b": {"attributes_right": 0.6, "attributes_legible": 0.7},
        "c": {"attributes_right": 0.6, "attributes_legible": 0.8},
        "d": {"attributes_right": 0.6, "attributes_legible": 0.8},
    }
    assert quality_sampling._best(tried) == "c"


def test_no_two_settings_of_guidance_are_the_same():
    settings = guidance_settings(block=2, threshold=0.1)
    assert len(set(settings.values())) == len(settings) == 9
    assert settings["none"].passes_at(0.5) == ("conditional",)
    assert skipping(2).passes_at(0.5) == ("conditional", "perturbed") and skipping(2).stg_blocks == (2,)
    assert settings["CFG 3 at noise levels from 0.3"].passes_at(0.2) == ("conditional",)
    assert projecting(6.0, threshold=0.1) == settings["APG 6"] != settings["CFG 6"]


def test_the_plots_show_a_line_for_every_sampler_and_are_small(tmp_path: Path):
    plot_curves(some_figures(), tmp_path)
    for name in (ERRORS, JUDGED):
        file = tmp_path / name
        assert 0 < file.stat().st_size < 60_000
        with Image.open(file) as picture:
            colours = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=1 << 20) or []}
        assert {tuple(bytes.fromhex(colour[1:])) for colour, _ in LINES.values()} <= colours


def test_the_same_figures_give_the_same_plots(tmp_path: Path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        quality_plots.plot_curves(some_figures(), tmp_path / folder)
    for name in (ERRORS, JUDGED):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
