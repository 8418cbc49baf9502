"""the benchmark of LTX-2's steps, tiny, on a CPU -> that it runs, counts right, and is of the real size where that is meant"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aiprod_components.families.ltx2_fitting import Fitting
from aiprod_components.stages.ltx2.flow import LTX2FlowStage
from benchmarks.gpu import ltx2_step
from benchmarks.gpu.ltx2_step import MODEL_23, TINY, blank, cases_of, drawn, family_of, main, step_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", ["guided draft", "distilled draft", "refinement"])
def test_operations_are_counted_as_torch_counts_them(case: str):
    family = family_of(Fitting(), drawn(blank({**MODEL_23, **TINY}), CPU))
    stage = LTX2FlowStage(family, transformer="transformer", device=CPU)
    (counted,) = (each for each in cases_of(family) if each.name == case)
    step = step_of(stage, counted)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    assert counted.flops == counter.get_total_flops()


def test_the_full_size_is_that_of_2_3():
    network = blank(MODEL_23)
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(18.99e9, rel=1e-3)
    flops = {case.name: case.flops / 1e12 for case in cases_of(family_of(Fitting(), network))}
    assert flops["distilled draft"] == pytest.approx(109, rel=0.02) and flops["refinement"] == pytest.approx(537, rel=0.02)


def test_the_tiny_one_runs_and_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks: list[nn.Module] = []

    def compile_later(block: nn.Module) -> None:
        """Really, it takes minutes."""
        blocks.append(block)

    monkeypatch.setattr(nn.Module, "compile", compile_later)
    assert main(["--tiny", "--repeats", "1", "--peak-tflops", "0.1", "--out", str(tmp_path / "step.json")]) == 0
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["commit"] and found["hardware"] and found["versions"]["diffusers"] and found["card"] is None
    rows = {(row["precision"], row["step"], row["what"]) for row in found["steps"]}
    steps = ("guided draft", "distilled draft", "refinement")
    plain = {(precision, step, what) for precision in ("bfloat16", "float8") for step in steps for what in ("stage", "network")}
    assert rows == plain | {("bfloat16", step, f"{what}, compiled") for step in steps for what in ("stage", "network")}
    assert len(blocks) == 2 and all(row["seconds"] > 0 and row["utilisation"] > 0 for row in found["steps"])


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2 and "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("card", "peak"), [("NVIDIA H100 80GB HBM3", 989.0), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA L4", 121.0), ("?", None)]
)
def test_a_card_is_known_by_its_name(card: str, peak: float | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    assert ltx2_step.peak_of(torch.device("cuda")) == peak
