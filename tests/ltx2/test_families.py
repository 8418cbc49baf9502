"""a folder of 2.0, 2.3 or 2.5 -> version, variant, defaults, limits, licence and fingerprint of its family"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aiprod_components.calls import Guidance
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.families.ltx2 import DISTILLED_SIGMAS, DRAFT_SHIFT, REFINEMENT_SIGMAS, LTX2Family
from aiprod_components.families.ltx2_folder import UNSAID, licence_of
from aiprod_components.pipelines import defaults_of, parse_request
from tests.ltx2.conftest import FolderOf

# Version -> the variant that its folder is known as.
KNOWN = {"2.0": "dev", "2.3": "dev", "2.5": "distilled"}
STEPS = {"2.0": 40, "2.3": 30, "2.5": 30}
CRF = {"2.0": 33, "2.3": 33, "2.5": 18}
AT_24 = "at 24 frames per second; ask for fewer frames, or for more of them per second"
PROMPT = {"prompt": "a red fox", "seed": 3}


def family_of(folder: Path, **options: Any) -> LTX2Family:
    family = make_family("ltx2", weights=str(folder), **options)
    assert isinstance(family, LTX2Family)
    return family


def planned(family: Family, **fields: Any) -> Any:
    """The calls of a request by the names of their steps."""
    return {step.name: step.call for step in parse_request({**PROMPT, **fields}, family=family).plan(family).steps}


def refusal(family: Family, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequestError) as caught:
        planned(family, **fields)
    return caught.value.message, caught.value.field


@pytest.mark.parametrize("version", KNOWN)
def test_version_and_variant_are_seen_in_the_folder(version: str, folder_of: FolderOf):
    family = family_of(folder_of(version))
    assert family.version.name == version and family.is_distilled == (KNOWN[version] == "distilled")
    assert family.title == f"LTX-2 {version}, {KNOWN[version]}, bfloat16"


@pytest.mark.parametrize("variant", ["dev", "distilled"])
@pytest.mark.parametrize("version", KNOWN)
def test_a_variant_that_is_said_goes_before(version: str, variant: str, folder_of: FolderOf):
    family = family_of(folder_of(version), variant=variant, precision="float32")
    assert family.title == f"LTX-2 {version}, {variant}, float32" and family.dtype == torch.float32
    assert family.transformer == ("transformer_full" if (version, variant) == ("2.5", "dev") else "transformer")


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_a_guided_folder_that_is_said_to_be_distilled_is_served_with_a_warning(version: str, folder_of: FolderOf):
    warning = family_of(folder_of(version), variant="distilled").warning
    assert warning is not None and "says that the checkpoint is guided" in warning and "because variant says so" in warning
    assert family_of(folder_of(version)).warning is None and family_of(folder_of(version), variant="dev").warning is None


@pytest.mark.parametrize("shifts", [False, True])
def test_of_a_folder_with_both_transformers_either_variant_is_served_without_a_warning(shifts: bool, folder_of: FolderOf, tmp_path: Path):
    folder = shutil.copytree(folder_of("2.5"), tmp_path / "2.5")
    scheduler = folder / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"use_dynamic_shifting": shifts}))
    assert [family_of(folder, variant=variant).warning for variant in ("dev", "distilled")] == [None, None]


@pytest.mark.parametrize(("version", "skipped"), [("2.0", None), ("2.3", (1,)), ("2.5", (1,))])
def test_a_guided_checkpoint_is_sampled_as_its_authors_do(version: str, skipped: tuple[int, ...] | None, folder_of: FolderOf):
    """Of two blocks the last is skipped; 2.0 cannot skip any."""
    family = family_of(folder_of(version), variant="dev")
    skip: dict[str, Any] = {} if skipped is None else {"stg_scale": 1.0, "stg_blocks": skipped}
    assert family.sampling.guidance == Guidance(scale=3.0, rescale=0.7, modality_scale=3.0, **skip)
    assert family.sampling.audio_guidance == Guidance(scale=7.0, rescale=0.7, modality_scale=3.0, **skip)
    assert defaults_of(family)["num_inference_steps"] == STEPS[version]
    assert family.version.picture_crf == CRF[version] and family.version.cross_timestep == (version != "2.0")


@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_the_skipped_block_of_a_real_transformer_is_28(version: str, folder_of: FolderOf, tmp_path: Path):
    folder = shutil.copytree(folder_of(version), tmp_path / version)
    for config in folder.glob("transformer*/config.json"):
        config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 48'))
        weights = config.with_name("diffusion_pytorch_model.safetensors")
        save_file(load_file(weights) | {"transformer_blocks.47.scale_shift_table": torch.zeros(1)}, weights)
    family = family_of(folder, variant="dev")
    assert family.attention_blocks == 48 and family.sampling.guidance.stg_blocks == (28,)


@pytest.mark.parametrize("version", KNOWN)
def test_a_distilled_checkpoint_is_sampled_without_guidance(version: str, folder_of: FolderOf):
    family = family_of(folder_of(version), variant="distilled")
    assert family.sampling.guidance == family.sampling.audio_guidance == Guidance()
    for call, sigmas in zip(("draft", "refined"), (DISTILLED_SIGMAS, REFINEMENT_SIGMAS), strict=True):
        assert planned(family, pipeline="distilled", num_frames=9, height=128, width=128)[call].sampling.sigmas == sigmas


def test_guided_drafts_are_shifted_the_same_whatever_their_size_and_end_at_a_tenth(folder_of: FolderOf):
    family = family_of(folder_of("2.3"))
    sizes: list[dict[str, Any]] = [{"num_frames": 9, "height": 128, "width": 128}, {"num_frames": 121, "height": 704, "width": 1280}]
    drafts = [planned(family, **size)["draft"].sampling for size in sizes]
    assert drafts[0].sigmas == drafts[1].sigmas and len(drafts[0].sigmas) == STEPS["2.3"] + 1
    assert drafts[0].sigmas[0] == 1.0 and drafts[0].sigmas[-2:] == (pytest.approx(0.1), 0.0)
    # The middle of time t is where sigma is e^shift / (e^shift + 1/t - 1), before the stretch.
    assert family.sampling.draft_shift == DRAFT_SHIFT == 2.05
    shift, count = torch.tensor(2.05).double(), STEPS["2.3"]
    times = torch.linspace(1.0, 1.0 / count, count, dtype=torch.float64)
    shifted = shift.exp() / (shift.exp() + 1 / times - 1)
    stretched = 1 - (1 - shifted) * (1 - 0.1) / (1 - shifted[-1])
    assert torch.tensor(drafts[0].sigmas[:-1]).double().sub(stretched).abs().max() < 1e-5
    whole = [planned(family, pipeline="ti2vid_one_stage", **size)["draft"].sampling for size in sizes]
    assert whole[0].sigmas != whole[1].sigmas, "those that are not refined are shifted by their tokens"


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, UNSAID),
        ({"LICENSE": "\n\n# LTX-2 Community License Agreement\n\nterms\n"}, "LTX-2 Community License Agreement"),
        ({"LICENSE.md": "Terms of use", "README.md": "---\nlicense: mit\n---\n"}, "Terms of use"),
        ({"README.md": "---\nlicense: apache-2.0\ntags:\n- video\n---\n# Card\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: ltx-2-community\n---\n"}, "ltx-2-community"),
        (
            {"README.md": '---\nlicense: other\nlicense_name: "ltx-2"\nlicense_link: https://example.com/terms\n---\n'},
            "ltx-2 (https://example.com/terms)",
        ),
        ({"README.md": "---\nlicense: other\nlicense_name: ltx-2\nlicense_link: LICENSE\n---\n"}, "ltx-2"),
        ({"README.md": "---\nlicense: other\n---\nlicense: mit\n"}, UNSAID),
        ({"README.md": "# A card\nlicense: mit\n"}, UNSAID),
        ({"README.md": ""}, UNSAID),
        ({"LICENSE": "x" * 5000}, "x" * 200),
        ({"LICENSE": "\x1b[31mred\x07 terms\n"}, "[31mred terms"),
        ({"README.md": "---\nlicense: mit\x1b]0;title\x07\n---\n"}, "mit]0;title"),
        ({"LICENSE": "\x07\nterms of use\n"}, "terms of use"),
    ],
)
def test_the_licence_is_what_the_folder_says(files: dict[str, str], licence: str, tmp_path: Path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence


def test_a_fingerprint_is_of_the_content_wherever_it_lies(folder_of: FolderOf, tmp_path: Path):
    before = family_of(folder_of("2.0"), variant="dev")
    moved = shutil.copytree(folder_of("2.0"), tmp_path / "elsewhere" / "by another name")
    assert family_of(moved, variant="dev").fingerprint == before.fingerprint
    loras = shutil.copytree(folder_of("2.0").parent / "loras", tmp_path / "loras")
    beside, moved_beside = (family_of(moved, variant="dev", loras=str(place)) for place in (loras, folder_of("2.0").parent / "loras"))
    assert beside.fingerprint == moved_beside.fingerprint != before.fingerprint


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "connectors", "vae", "audio_vae", "vocoder", "latent_upsampler"])
def test_a_fingerprint_changes_with_one_weight(part: str, folder_of: FolderOf, tmp_path: Path):
    folder = shutil.copytree(folder_of("2.0"), tmp_path / "2.0")
    [file] = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    name = max(weights)
    weights[name] = weights[name].clone()
    weights[name].view(-1)[-1] += 1
    save_file(weights, file, metadata={"format": "pt"})
    assert family_of(folder).fingerprint != family_of(folder_of("2.0")).fingerprint


def test_a_fingerprint_changes_with_variant_precision_watermark_configs_and_loras(folder_of: FolderOf, tmp_path: Path):
    folder = shutil.copytree(folder_of("2.0"), tmp_path / "2.0")
    options: list[dict[str, Any]] = [{}, {"variant": "distilled"}, {"precision": "float32"}, {"watermark": "visible"}]
    fingerprints = [family_of(folder, **each).fingerprint for each in options]
    config = folder / "vae/config.json"
    config.write_text(config.read_text().replace('"decoder_causal": false', '"decoder_causal": true'))
    fingerprints.append(family_of(folder).fingerprint)
    (folder / "loras").mkdir()
    lora = shutil.copy(folder_of("2.0").parent / "loras/distilled.safetensors", folder / "loras")
    fingerprints.append(family_of(folder).fingerprint)
    save_file({name: 2 * tensor for name, tensor in load_file(lora).items()}, lora)
    fingerprints.append(family_of(folder).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints) == 7


@pytest.mark.parametrize(
    ("fields", "message", "field"),
    [
        ({"num_frames": 10}, "num_frames must be 1 + a multiple of 8, got 10; nearest is 9", "num_frames"),
        ({"num_frames": 120}, "num_frames must be 1 + a multiple of 8, got 120; nearest is 121", "num_frames"),
        ({"width": 1000}, "width must be a multiple of 64 for this pipeline, got 1000; nearest is 1024", "width"),
        ({"height": 96}, "height must be a multiple of 64 for this pipeline, got 96; nearest is 128", "height"),
        (
            {"pipeline": "ti2vid_one_stage", "height": 100},
            "height must be a multiple of 32 for this pipeline, got 100; nearest is 96",
            "height",
        ),
        ({"num_frames": 1449}, f"num_frames must be at most 60.1 seconds' worth, got 60.4 s {AT_24}", "num_frames"),
        ({"width": 4096}, "width must be 64 to 3840, got 4096", "width"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("version", KNOWN)
def test_what_is_beyond_the_limits_is_refused_with_what_is_within(
    version: str, fields: dict[str, Any], message: str, field: str, folder_of: FolderOf
):
    assert refusal(family_of(folder_of(version), variant="dev"), **fields) == (message, field)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_frames": 1},
        {"num_frames": 481, "height": 64, "width": 64},
        {"num_frames": 961, "frame_rate": 48, "height": 64, "width": 128},
        {"pipeline": "ti2vid_one_stage", "height": 96, "width": 64},
        {"height": 2176, "width": 3840},
    ],
    ids=str,
)
def test_what_is_just_within_the_limits_is_planned(fields: dict[str, Any], folder_of: FolderOf):
    assert "draft" in planned(family_of(folder_of("2.3")), **fields)


@pytest.mark.parametrize(
    ("field", "value"), [("modality_guidance_scale", 2.0), ("audio_guidance", {"scale": 3.0}), ("audio_guidance", {"modality_scale": 2.0})]
)
def test_guidance_of_sound_is_refused_where_there_is_none(field: str, value: object):
    message, at = refusal(make_family("miniature"), **{field: value})
    assert (message, at) == (f"{field} is for sound, and miniature makes none; leave it out", field)


def test_skip_guidance_is_refused_where_no_block_can_be_skipped(folder_of: FolderOf):
    skip = {"scale": 1.0, "blocks": [1]}
    message = "skip_guidance: no block of ltx2 can go without attention; leave it out"
    assert refusal(family_of(folder_of("2.0")), skip_guidance=skip) == (message, "skip_guidance")
    family = family_of(folder_of("2.3"))
    assert planned(family, skip_guidance=skip)["draft"].sampling.guidance.stg_blocks == (1,)
    message = "skip_guidance.blocks must be 0 to 1 for ltx2, got 28"
    assert refusal(family, skip_guidance={"scale": 1.0, "blocks": [28]}) == (message, "skip_guidance")


def test_skipping_for_the_sound_alone_is_refused(folder_of: FolderOf):
    message, field = refusal(family_of(folder_of("2.0")), audio_guidance={"scale": 3.0, "skip_scale": 1.0})
    assert field == "audio_guidance" and "skip_scale needs the blocks that skip_guidance names" in message
