"""every stage in a process of its own, with its own networks alone; what they hand on, as bytes -> the same bits as one pipeline's"""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from PIL import Image

from aiprod_components.pipelines import parse_request
from aiprod_components.values import AudioLatents, Latents, Picture, PromptEmbeds, Waveform
from deployments.envelope import Sealed
from deployments.keeping import KINDS, from_bytes, to_bytes
from deployments.settings import FamilyArgs
from tests.ltx2.conftest import FolderOf
from tests.ltx2.one_stage import Parcel, StageProcesses, stage_processes
from tests.ltx2.whole import TwoStages

pytestmark = pytest.mark.timeout(280)

NETWORKS = {
    "text_encoder": ["text_encoder", "connectors"],
    "vae_encoder": ["vae"],
    "denoiser": ["transformer"],
    "upsampler": ["latent_upsampler"],
    "refiner": ["transformer"],
    "audio_decoder": ["audio_vae", "vocoder"],
    "vae_decoder": ["vae"],
}
REQUEST = {
    "prompt": "a fox runs over snow",
    "negative_prompt": "blurry",
    "seed": 5,
    "num_frames": 17,
    "height": 64,
    "width": 128,
    "num_inference_steps": 2,
}


def _picture(seed: int) -> bytes:
    pixels = torch.randint(0, 256, (9, 17, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize((136, 72), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


PICTURES = (_picture(0), _picture(1))
CASES: dict[str, dict[str, Any]] = {
    "from text": {},
    "with keyframes": {"keyframes": [{"picture": Picture(PICTURES[0]), "frame": 0}, {"picture": Picture(PICTURES[1]), "frame": 9}]},
}


@pytest.fixture(scope="module")
def args(folder_of: FolderOf) -> FamilyArgs:
    return FamilyArgs(
        name="ltx2",
        weights=str(folder_of("2.3")),
        loras=str(folder_of("2.3").parent / "loras"),
        variant="dev",
        precision="float32",
    )


@pytest.fixture(scope="module")
def processes(args: FamilyArgs) -> Iterator[StageProcesses]:
    with stage_processes(args, tuple(NETWORKS)) as started:
        yield started


@pytest.fixture(scope="module")
def whole(args: FamilyArgs) -> Iterator[TwoStages]:
    """With as many threads as each process has: sums in another order have other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TwoStages(args.make())  # type: ignore[arg-type]
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_stages_in_processes_of_their_own_make_what_one_pipeline_makes(
    case: str, args: FamilyArgs, processes: StageProcesses, whole: TwoStages
) -> None:
    family, request = args.make(), {**REQUEST, **CASES[case]}
    plan = parse_request(request, family=family).plan(family)
    results: dict[str, Sealed] = {}
    for step in plan.steps:
        made, parcel = processes.run(step.call, {name: results[name] for name in step.inputs})
        assert parcel.buffers or made.kind.__name__ == "Video", "tensors travel beside the pickle, not in it"
        results[step.name] = _kept(made)
    conditions = [LTX2VideoCondition(Image.open(io.BytesIO(file)), index=index) for file, index in zip(PICTURES, (0, 2), strict=True)]
    expected = whole.run(plan, request, conditions=conditions if "keyframes" in request else ())
    assert results["video"].open().frames_digest == expected.frames_digest
    sound: Waveform = results["sound"].open()
    assert sound.sample_rate == 48_000 and torch.equal(sound.samples, expected.sound)


def _kept(sealed: Sealed) -> Sealed:
    """As a job's next attempt finds it; a video is published instead."""
    return from_bytes(to_bytes(sealed)) if sealed.kind.__name__ in KINDS else sealed


def test_each_process_has_loaded_its_own_networks_alone(processes: StageProcesses) -> None:
    assert processes.loaded() == NETWORKS


OPTIONAL_FIELDS: dict[str, Any] = {
    "a prompt with its sound": PromptEmbeds(torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), audio_embeds=torch.randn(1, 3, 2)),
    "a prompt and another, in bfloat16": PromptEmbeds(
        torch.randn(1, 3, 4).bfloat16(),
        torch.tensor([[False, True, True]]),
        torch.randn(1, 2, 4).bfloat16(),
        torch.tensor([[True, False]]),
        torch.randn(1, 3, 2).bfloat16(),
        torch.randn(1, 2, 2).bfloat16(),
    ),
    "latents of pictures alone": Latents(torch.randn(1, 8, 2, 2, 2)),
    "latents with sound and the state of noise": Latents(
        torch.randn(1, 8, 2, 2, 2), torch.randn(1, 8, 9, 16), torch.Generator().manual_seed(3).get_state()
    ),
    "latents that lie in another order": Latents(
        torch.randn(1, 2, 2, 2, 8).permute(0, 4, 1, 2, 3), torch.randn(1, 9, 8, 16).transpose(1, 2)
    ),
    "latents of sound alone": AudioLatents(torch.randn(1, 8, 9, 16)),
    "sound": Waveform(torch.randn(1, 2, 480), 48_000),
}


@pytest.mark.parametrize("case", OPTIONAL_FIELDS)
def test_every_field_that_sound_needs_survives_both_ways(case: str) -> None:
    value = OPTIONAL_FIELDS[case]
    sent = Parcel.of(Sealed.of(value, receipts=())).open()
    for arrived in (sent.open(), from_bytes(to_bytes(sent)).open()):
        for name, before in vars(value).items():
            after = getattr(arrived, name)
            if isinstance(before, torch.Tensor):
                assert torch.equal(after, before) and (after.dtype, after.stride()) == (before.dtype, before.stride()), name
            else:
                assert after == before, name
