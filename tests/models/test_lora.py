"""LoRAs: read from every format, fused at any scale, taken out again without a trace, refused by another network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aiprod_components.errors import CheckpointError
from aiprod_components.models.lora import Lora, LoraFuser, LowRank, check_header, inject, injected, metadata_of, read_lora, save_lora

FORMATS = {
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft with an adapter's name": ("base_model.model.{}.lora_A.default.weight", "base_model.model.{}.lora_B.default.weight"),
    "diffusers": ("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight"),
    "older diffusers": ("transformer.{}.lora.down.weight", "transformer.{}.lora.up.weight"),
    "single file": ("diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight"),
}


PAIR = {"enter.lora_A.weight": torch.zeros(4, 6), "enter.lora_B.weight": torch.zeros(8, 4)}


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"enter": nn.Linear(6, 8), "mix": nn.Conv3d(8, 8, 3, padding=1)}).requires_grad_(False)


def a_lora(name: str = "style", *, seed: int = 1, alpha: float = 2.0) -> Lora:
    g = torch.Generator().manual_seed(seed)
    factors = {
        "enter": LowRank(torch.randn(4, 6, generator=g), torch.randn(8, 4, generator=g), alpha / 4),
        "mix": LowRank(torch.randn(4, 8, 3, 3, 3, generator=g), torch.randn(8, 4, 1, 1, 1, generator=g), alpha / 4),
    }
    return Lora(name, factors)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def written(path: Path, lora: Lora, *, down: str, up: str, extra: dict[str, Tensor] | None = None) -> Path:
    tensors = {down.format(name): pair.down for name, pair in lora.factors.items()}
    tensors |= {up.format(name): pair.up for name, pair in lora.factors.items()}
    save_file({**tensors, **(extra or {})}, path)
    return path


@pytest.mark.parametrize(
    ("config", "strengths"),
    [
        ({"lora_alpha": 8}, {"enter": 2.0, "mix": 2.0}),
        ({"lora_alpha": 8, "use_rslora": True}, {"enter": 4.0, "mix": 4.0}),
        ({"lora_alpha": 8, "alpha_pattern": {"base_model.model.mix": 16}}, {"enter": 2.0, "mix": 4.0}),
        ({"alpha_pattern": {"ent.*": 16}}, {"enter": 4.0, "mix": 1.0}),
        ({"lora_alpha": 8, "alpha_pattern": None}, {"enter": 2.0, "mix": 2.0}),
    ],
    ids=["alpha", "rank-stabilized", "pattern", "pattern alone", "null"],
)
@pytest.mark.parametrize("where", ["header", "beside"])
def test_peft_s_config_says_the_strength(where: str, config: dict[str, Any], strengths: dict[str, float], tmp_path: Path):
    tensors = {f"{n}.lora_{k}.weight": t for n, p in a_lora().factors.items() for k, t in (("A", p.down), ("B", p.up))}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata if where == "header" else None)
    if where == "beside":
        (tmp_path / "a.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    assert {name: pair.strength for name, pair in read_lora(tmp_path / "a.safetensors").factors.items()} == pytest.approx(strengths)


@pytest.mark.parametrize("names", FORMATS.values(), ids=FORMATS)
def test_a_file_of_every_format_is_read(names: tuple[str, str], tmp_path: Path):
    lora = read_lora(written(tmp_path / "style.safetensors", a_lora(), down=names[0], up=names[1]))
    assert lora.name == "style" and lora.factors.keys() == {"enter", "mix"}
    # Without an alpha the scale is 1: alpha is the rank.
    torch.testing.assert_close(lora.factors["enter"].delta(), 2 * a_lora().factors["enter"].delta())


@pytest.mark.parametrize("where", ["tensor", "header"])
def test_alpha_counts_wherever_it_stands(where: str, tmp_path: Path):
    path = written(tmp_path / "a.safetensors", a_lora(), down="{}.lora_A.weight", up="{}.lora_B.weight")
    if where == "tensor":
        alphas = {f"{name}.alpha": torch.tensor(2.0) for name in ("enter", "mix")}
        written(path, a_lora(), down="{}.lora_A.weight", up="{}.lora_B.weight", extra=alphas)
    else:
        tensors = {f"{n}.lora_{k}.weight": t for n, p in a_lora().factors.items() for k, t in (("A", p.down), ("B", p.up))}
        save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 2.0})})
    torch.testing.assert_close(read_lora(path).factors["mix"].delta(), a_lora().factors["mix"].delta())


def test_a_fused_network_computes_what_the_factors_say():
    network, lora = a_network(), a_lora()
    plain, x = network["enter"], torch.randn(3, 6)  # type: ignore[index]
    before = plain(x)
    LoraFuser(network).fuse([(lora, 0.7)])
    pair = lora.factors["enter"]
    torch.testing.assert_close(plain(x) - before, 0.7 * 0.5 * (x @ pair.down.T @ pair.up.T), rtol=1e-5, atol=1e-5)


def test_a_kernel_s_factors_are_a_thin_convolution_and_a_pointwise_one():
    network, pair = a_network(), a_lora().factors["mix"]
    mix, x = network["mix"], torch.randn(1, 8, 3, 4, 5)  # type: ignore[index]
    before = mix(x)
    LoraFuser(network).fuse([(a_lora(), 1.0)])
    thin = nn.functional.conv3d(nn.functional.conv3d(x, pair.down, padding=1), pair.up)
    torch.testing.assert_close(mix(x) - before, 0.5 * thin, rtol=1e-4, atol=1e-4)


def test_loras_add_up_and_a_hundred_changes_leave_no_trace():
    network = a_network()
    own, fuser = weights_of(network), LoraFuser(network)
    one, two = a_lora("one"), a_lora("two", seed=2)
    for k in range(100):
        fuser.fuse([(one, 0.1 * k), (two, -0.3)])
    expected = own["mix.weight"] + 9.9 * one.factors["mix"].delta() - 0.3 * two.factors["mix"].delta()
    torch.testing.assert_close(network.state_dict()["mix.weight"], expected, rtol=1e-5, atol=1e-5)
    fuser.fuse([])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, own[name])


def test_a_lora_of_another_network_is_refused_and_changes_nothing():
    network = a_network()
    own = weights_of(network)
    stranger = Lora("stranger", {"enter": LowRank(torch.randn(4, 7), torch.randn(8, 4), 1.0)})
    with pytest.raises(CheckpointError, match="enter is 8x7, the network's 8x6"):
        LoraFuser(network).fuse([(a_lora(), 1.0), (stranger, 1.0)])
    with pytest.raises(CheckpointError, match="leave, which this network has not"):
        LoraFuser(network).fuse([(Lora("l", {"leave": a_lora().factors["enter"]}), 1.0)])
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_injected_factors_change_nothing_at_first_train_alone_and_come_back_from_a_file(tmp_path: Path):
    network = a_network()
    own, x = weights_of(network), torch.randn(3, 6)
    before = network["enter"](x)  # type: ignore[index]
    inject(network, rank=2, modules="enter|mix")
    assert torch.equal(network["enter"](x), before)  # type: ignore[index]
    assert {name.split(".")[-1] for name, p in network.named_parameters() if p.requires_grad} == {"down", "up"}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("up"):
                parameter.normal_()
    trained = network["enter"](x)  # type: ignore[index]
    save_lora(injected(network, name="mine"), tmp_path / "mine.safetensors", metadata={"control": "canny"})
    assert metadata_of(tmp_path / "mine.safetensors")["control"] == "canny"
    assert check_header(tmp_path / "mine.safetensors") == {"enter": (8, 6), "mix": (8, 8, 3, 3, 3)}
    again = a_network()
    assert all(torch.equal(own[name], tensor) for name, tensor in again.state_dict().items())
    LoraFuser(again).fuse([(read_lora(tmp_path / "mine.safetensors"), 1.0)])
    torch.testing.assert_close(again["enter"](x), trained, rtol=1e-2, atol=1e-2)  # stored in half precision  # type: ignore[index]


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"enter.weight": torch.zeros(2, 2)}, "no low-rank factor"),
        ({"enter.lora_A.weight": torch.zeros(4, 6)}, "do not fit each other"),
        ({"enter.lora_A.weight": torch.zeros(4, 6), "enter.lora_B.weight": torch.zeros(8, 3)}, "do not fit each other"),
        ({"enter.lora_A.weight": torch.zeros(0, 6), "enter.lora_B.weight": torch.zeros(8, 0)}, "do not fit each other"),
        ({"enter.lora_A.weight": torch.tensor(1.0), "enter.lora_B.weight": torch.zeros(8, 3)}, "do not fit each other"),
        ({"mix.lora_A.weight": torch.zeros(4, 8, 3, 3, 3), "mix.lora_B.weight": torch.zeros(8, 4, 3, 3, 3)}, "do not fit each other"),
        ({"enter.lora_A.weight": torch.full((4, 6), torch.nan), "enter.lora_B.weight": torch.zeros(8, 4)}, "not all finite"),
        ({**PAIR, "enter.alpha": torch.zeros(3)}, "no readable alpha"),
        ({**PAIR, "enter.alpha": torch.tensor(torch.nan)}, "no readable alpha .*finite"),
        ({}, "holds no low-rank factors"),
    ],
)
def test_a_file_that_is_no_lora_is_refused_by_name(tensors: dict[str, Tensor], reason: str, tmp_path: Path):
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=f"odd.safetensors.*{reason}"):
        read_lora(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[1]",
        '{"lora_alpha": "much"}',
        '{"lora_alpha": [1]}',
        '{"lora_alpha": Infinity}',
        '{"alpha_pattern": {"(": 1}}',
        '{"alpha_pattern": {"(?i)mix": 1}}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
    ],
)
def test_a_header_that_says_nonsense_of_alpha_is_refused_by_name(config: str, tmp_path: Path):
    save_file(PAIR, tmp_path / "odd.safetensors", metadata={"lora_adapter_metadata": config})
    with pytest.raises(CheckpointError, match=r"odd\.safetensors says no readable alpha|odd\.safetensors holds"):
        read_lora(tmp_path / "odd.safetensors")


def test_a_note_that_names_alpha_is_a_note(tmp_path: Path):
    save_file(PAIR, tmp_path / "noted.safetensors", metadata={"note": "lora_alpha was 8"})
    assert read_lora(tmp_path / "noted.safetensors").factors["enter"].strength == 1.0


def test_what_stops_a_change_halfway_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    network = a_network()
    own, fuser = weights_of(network), LoraFuser(network)
    with monkeypatch.context() as broken:
        whole = LowRank.delta
        broken.setattr(LowRank, "delta", lambda pair: whole(pair) if pair.down.ndim == 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fuser.fuse([(a_lora(), 1.0)])
    fuser.fuse([])
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_half_a_file_is_refused_by_name(tmp_path: Path):
    path = written(tmp_path / "cut.safetensors", a_lora(), down="{}.lora_A.weight", up="{}.lora_B.weight")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a whole safetensors file"):
        read_lora(path)
