"""A family knows its LoRAs by their headers: those that fit, and why the others do not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aiprod_components.errors import InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.pipelines import parse_request

QKV = "attention_blocks.0.self_attention.qkv"


def write(folder: Path, name: str, *, width: int = 192, metadata: dict[str, str] | None = None, module: str = QKV) -> None:
    factors = {f"{module}.lora_A.weight": torch.zeros(2, width), f"{module}.lora_B.weight": torch.zeros(3 * width, 2)}
    save_file(factors, folder / f"{name}.safetensors", metadata=metadata)


def test_a_folder_s_loras_are_known_beside_those_of_the_weights(tmp_path: Path):
    write(tmp_path, "noir")
    write(tmp_path, "follow", metadata={"control": "canny", "downscale": "2"})
    family = make_family("miniature", loras=str(tmp_path))
    assert {"noir", "follow", "canny", "distilled"} <= family.loras.keys()
    noir, follow = family.lora("noir"), family.lora("follow")
    assert (noir.component, noir.control, noir.downscale) == ("denoiser", None, 1)
    assert (follow.component, follow.control, follow.downscale) == ("denoiser", "canny", 2)


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("wide", {"width": 768}, "its attention_blocks.0.self_attention.qkv is 2304x768, the network's 576x192"),
        ("deep", {"module": "attention_blocks.9.self_attention.qkv"}, "which this network has not"),
        ("theirs", {"metadata": {"family": "aiprod"}}, "made for family aiprod"),
        ("painter", {"metadata": {"component": "vae"}}, "it changes vae, which takes no LoRAs"),
        ("seer", {"metadata": {"control": "aura"}}, "its control is aura; the controls are canny, video"),
        ("late", {"metadata": {"control": "canny", "component": "refiner"}}, "only stage 1 looks at one"),
        ("tiny", {"metadata": {"downscale": "x"}}, "its downscale is x; it must be 1, 2 or 4"),
    ],
)
def test_a_lora_of_another_family_is_refused_where_it_is_asked_for(name: str, file: dict[str, object], reason: str, tmp_path: Path):
    write(tmp_path, name, **file)  # type: ignore[arg-type]
    family = make_family("miniature", loras=str(tmp_path))
    request = parse_request({"prompt": "a ball", "loras": [{"name": name}]}, family=family)
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        request.plan(family)
    assert caught.value.field == "loras"


def test_a_damaged_file_harms_nobody_who_does_not_ask_for_it(tmp_path: Path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    family = make_family("miniature", loras=str(tmp_path))
    assert parse_request({"prompt": "a ball"}, family=family).plan(family)
    with pytest.raises(InvalidRequestError, match="not a whole safetensors file"):
        family.lora("cut")


def test_a_lora_changes_the_stage_of_its_component_alone(tmp_path: Path):
    write(tmp_path, "noir")
    write(tmp_path, "sharp", metadata={"component": "refiner"})
    family = make_family("miniature", loras=str(tmp_path))
    record = {"prompt": "a ball", "loras": [{"name": "noir", "scale": 0.5}, {"name": "sharp"}]}
    calls = {step.name: step.call for step in parse_request(record, family=family).plan(family).steps}
    used = {name: [(use.name, use.scale) for use in getattr(calls[name], "loras")] for name in ("draft", "refined")}  # noqa: B009
    assert used == {"draft": [("noir", 0.5)], "refined": [("sharp", 1.0)]}


def test_a_family_with_random_weights_takes_loras_of_its_own_shape(tmp_path: Path):
    write(tmp_path, "noir", width=768)
    write(tmp_path, "small")
    family = make_family("aiprod", weights="random", loras=str(tmp_path))
    assert family.lora("noir").fault is None
    with pytest.raises(InvalidRequestError, match="does not belong to aiprod"):
        family.lora("small")
