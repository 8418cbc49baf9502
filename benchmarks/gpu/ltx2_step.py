"""random weights at LTX-2 2.3's full size -> seconds a step, and how much of the card's arithmetic that is -> results/ltx2_step.json

python -m benchmarks.gpu.ltx2_step [--repeats 5] [--peak-tflops 989]

Steps of a video of 121 frames of 1280 x 704: of the guided draft at half the size (four passes of the network), of the distilled draft
(one), and of the refinement at full size (one). `stage` is AIPROD's denoiser or refiner, sampler and guidance included; `network` is
diffusers' transformer alone, with PyTorch's own attention, asked the same. Weights are bfloat16 or kept as float8; both are computed in
bfloat16. The card needs some 48 GB: weights are drawn on it, and nothing is downloaded. `--tiny` runs a tiny network on the CPU, to see
that all this works.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aiprod_components.calls import Denoise, Guidance, Refine, Sampling
from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.families.base import Chaining, Limits, SamplingDefaults
from aiprod_components.families.ltx2 import AUDIO_RATE, DISTILLED_SIGMAS, REFINEMENT_SIGMAS, LTX2Family
from aiprod_components.families.ltx2_fitting import AUTO, FLOAT8, Fitting
from aiprod_components.families.ltx2_folder import VERSIONS
from aiprod_components.stages.ltx2.fitting import attention_works, choose_attention, compile_blocks, use_attention
from aiprod_components.stages.ltx2.flow import LTX2FlowStage
from aiprod_components.values import LatentGrid, Latents, PromptEmbeds, VideoShape
from benchmarks.gpu.ltx2_flops import Tokens, flops_of
from benchmarks.measuring import RESULTS, circumstances, medians

# What 2.3's config says besides diffusers' defaults; widths and layers are among those.
MODEL_23: dict[str, Any] = {
    **dict.fromkeys(("gated_attn", "audio_gated_attn", "cross_attn_mod", "audio_cross_attn_mod", "perturbed_attn"), True),
    "use_prompt_embeddings": False,
    "rope_type": "split",
}
TINY: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "cross_attention_dim": 64,
    "num_layers": 2,
    "audio_num_attention_heads": 4,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 32,
}
VIDEO, TINY_VIDEO = VideoShape(121, 704, 1280, 24.0), VideoShape(9, 128, 128, 24.0)
PROMPT_TOKENS = 1024
GUIDED = Guidance(scale=3.0, rescale=0.7, modality_scale=3.0, stg_scale=1.0)
# Dense bfloat16 TFLOP/s as NVIDIA's data sheets have them, by what the card's name contains; the first that fits.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
}


@dataclass(frozen=True)
class RandomLTX2(LTX2Family):
    """2.3 without a folder: its transformer is the one that is given."""

    network: Any = None

    @property
    def transformer(self) -> str:
        return "transformer"

    def load(self, name: str) -> nn.Module:
        return self.network

    def statistics(self, name: str) -> tuple[Tensor, Tensor]:
        return torch.zeros(128), torch.ones(128)


@dataclass(frozen=True)
class Case:
    """A step to be timed, and its arithmetic."""

    name: str
    call: Denoise | Refine
    flops: int


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="the card's, dense bfloat16 (default: by its name)")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "ltx2_step.json")
    options = parser.parse_args(arguments)
    if not (options.tiny or torch.cuda.is_available()):
        sys.stderr.write("no CUDA device: run this where there is one with some 48 GB, or with --tiny to see that it works\n")
        return 2
    device = torch.device("cpu" if options.tiny else "cuda")
    peak = options.peak_tflops or peak_of(device)
    rows = [row for precision in ("bfloat16", FLOAT8) for row in measure(precision, device, tiny=options.tiny, repeats=options.repeats)]
    for row in rows:
        row["utilisation"] = None if peak is None else row["tflop"] / row["seconds"] / peak
        used = "" if row["utilisation"] is None else f"  {100 * row['utilisation']:.0f} % of {peak:g} TFLOP/s"
        sys.stdout.write(f"{row['precision']:9} {row['step']:16} {row['what']:26} {row['seconds']:.4f} s{used}\n")
    result = {**circumstances("torch", "diffusers"), "card": card_of(device), "peak_tflops": peak, "repeats": options.repeats}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**result, "video": "tiny" if options.tiny else "1280x704x121", "steps": rows}, indent=2) + "\n")
    return 0


def measure(precision: str, device: torch.device, *, tiny: bool, repeats: int) -> Iterator[dict[str, Any]]:
    """The stage as it is served and the bare network, then both compiled, where that goes together with the precision."""
    # There is room for one: its attention is exchanged.
    network = drawn(blank({**MODEL_23, **(TINY if tiny else {})}), device)
    family = family_of(Fitting(precision=precision), network)
    stage = LTX2FlowStage(family, transformer="transformer", device=device)
    fastest = choose_attention(AUTO, works=lambda name: attention_works(name, device, dtype=family.dtype))
    cases = cases_of(family)
    for compiled in (False, True) if precision != FLOAT8 else (False,):
        if compiled:
            compile_blocks(network)
        for case in cases:
            for what, attention in (("stage", fastest), ("network", "native")):
                use_attention(network, attention)
                work = step_of(stage, case) if what == "stage" else passes_of(stage, network, case)
                seconds, memory = timed(work, device, repeats=repeats)
                yield {
                    "precision": precision,
                    "step": case.name,
                    "what": f"{what}{', compiled' if compiled else ''}",
                    "attention": attention,
                    "seconds": seconds,
                    "tflop": case.flops / 1e12,
                    "peak_memory_gb": memory,
                }


def timed(work: Callable[[], Any], device: torch.device, *, repeats: int) -> tuple[float, float | None]:
    """The median of seconds, and the most gigabytes that the card had to hold (None: it is no card)."""

    def waited_for() -> None:
        with torch.inference_mode():
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ((seconds, _),) = medians(waited_for, repeats=repeats)
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None


def step_of(stage: LTX2FlowStage, case: Case) -> Callable[[], Any]:
    state = stage.start(case.call)
    return partial(stage.step, [state])


def passes_of(stage: LTX2FlowStage, network: Any, case: Case) -> Callable[[], Any]:
    """The network asked what the stage asks it in such a step, and nothing else."""
    asked: list[dict[str, Any]] = []
    listening = network.register_forward_pre_hook(lambda _, args, given: asked.append(given), with_kwargs=True)
    step_of(stage, case)()
    listening.remove()
    return lambda: [network(**question) for question in asked]


def family_of(fitting: Fitting, network: Any) -> RandomLTX2:
    """2.3's table, as far as a step needs it."""
    layers = network.config["num_layers"]
    return RandomLTX2(
        name="ltx2",
        title="random",
        licence="none",
        grid=LatentGrid(time=8, space=32, channels=128, audio_rate=AUDIO_RATE),
        limits=Limits(max_frames=121, min_side=64, max_side=1280, max_pixels=1280 * 704, max_steps=1, max_prompt_bytes=0),
        sampling=SamplingDefaults(1, GUIDED, TokenShift(1024, 0.95, 4096, 2.05), REFINEMENT_SIGMAS, DISTILLED_SIGMAS),
        chaining=Chaining(window=121, overlap=3),
        attention_blocks=layers,
        video=TINY_VIDEO if layers == TINY["num_layers"] else VIDEO,
        components={},
        weights=None,
        architecture="ltx2",
        version=VERSIONS["2.3"],
        fitting=fitting,
        network=network,
    )


def blank(model: Mapping[str, Any]) -> Any:
    """The transformer without weights."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel

    kind: Any = LTX2VideoTransformer3DModel
    with torch.device("meta"):
        return kind(**model).eval().requires_grad_(False)


def drawn(network: Any, device: torch.device) -> Any:
    """The same with random weights in bfloat16, on the device."""
    network.to(torch.bfloat16).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for weight in network.parameters():
        # What goes through a layer keeps its size: sums of zeros would let the card run faster than it does at work.
        weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    return network


def cases_of(family: RandomLTX2) -> list[Case]:
    whole = family.video
    half = replace(whole, height=whole.height // 2, width=whole.width // 2)
    guidance = replace(GUIDED, stg_blocks=(min(family.version.skipped_block, family.attention_blocks - 1),))
    prompt = prompt_of(family)
    guided = Sampling(DISTILLED_SIGMAS, guidance, seed=0, audio_guidance=replace(guidance, scale=7.0))
    draft = Latents(torch.zeros(1, *family.grid.shape_of(whole)), torch.zeros(1, 8, family.grid.audio_tokens_of(whole), 16))
    calls: dict[str, tuple[Denoise | Refine, VideoShape]] = {
        "guided draft": (Denoise(prompt, half, guided), half),
        "distilled draft": (Denoise(prompt, half, Sampling(DISTILLED_SIGMAS, Guidance(), seed=0)), half),
        "refinement": (Refine(prompt, draft, whole, Sampling(REFINEMENT_SIGMAS, Guidance(), seed=0)), whole),
    }
    return [Case(name, call, step_flops(family, call, video)) for name, (call, video) in calls.items()]


def step_flops(family: RandomLTX2, call: Denoise | Refine, video: VideoShape) -> int:
    tokens = Tokens(family.grid.tokens_of(video), family.grid.audio_tokens_of(video), PROMPT_TOKENS)
    skipped = len(call.sampling.guidance.stg_blocks)
    return sum(flops_of(family.network.config, tokens, kind=kind, skipped_blocks=skipped) for kind in call.sampling.passes_at(1.0))


def prompt_of(family: RandomLTX2) -> PromptEmbeds:
    config = family.network.config
    generator = torch.Generator().manual_seed(0)
    embeds, negative, audio, negative_audio = (
        torch.randn(1, PROMPT_TOKENS, config[width], generator=generator).to(family.dtype)
        for width in ("cross_attention_dim", "cross_attention_dim", "audio_cross_attention_dim", "audio_cross_attention_dim")
    )
    mask = torch.ones(1, PROMPT_TOKENS, dtype=torch.bool)
    return PromptEmbeds(embeds, mask, negative, mask, audio, negative_audio)


def peak_of(device: torch.device) -> float | None:
    """None: this card is not in the table, so nothing is said of utilisation."""
    if device.type != "cuda":
        return None
    return next((peak for name, peak in PEAKS.items() if name in torch.cuda.get_device_name(device)), None)


def card_of(device: torch.device) -> dict[str, Any] | None:
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {"name": properties.name, "memory_gb": properties.total_memory / 1e9, "capability": f"{properties.major}.{properties.minor}"}


if __name__ == "__main__":
    sys.exit(main())
