"""options -> the same network in less memory, or faster: what stays the same, what is refused, and what a tile shows"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from einops import repeat
from torch import Tensor, nn
from torch._dynamo.utils import counters

from aiprod_components.calls import DecodeVideo, EncodePrompt, LoraUse
from aiprod_components.errors import ConfigError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.ltx2_fitting import ATTENTIONS, OPTIONS, Fitting
from aiprod_components.local import Silent
from aiprod_components.stages.ltx2 import fitting as fits
from aiprod_components.stages.ltx2 import tiles
from aiprod_components.stages.ltx2.network import JointNetwork
from aiprod_components.stages.ltx2.text_encoder import LTX2TextEncoding
from aiprod_components.stages.ltx2.tiles import LATENTS, PIXELS, TileSize, through_tiles
from aiprod_components.stages.ltx2.vae_decoder import LTX2VAEDecoder
from aiprod_components.values import Latents, VideoShape
from deployments.settings import FamilyArgs
from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import AUDIO_WIDTH, TEXT_WIDTH, VERSIONS, WIDTH, make_lora

CPU = torch.device("cpu")
WHOLE_FITTING = Fitting()
FamilyOf = Callable[..., LTX2Family]

TIGHT = TileSize(frames=9, side=5, shared_frames=4, shared_side=2)


@pytest.fixture
def family_of(folder_of: FolderOf) -> FamilyOf:
    def family(version: str = "2.3", variant: str = "dev", **options: Any) -> LTX2Family:
        folder = folder_of(version)
        return cast(LTX2Family, make_family("ltx2", weights=str(folder), loras=str(folder.parent / "loras"), variant=variant, **options))

    return family


def asked(network: Any, *, dtype: torch.dtype = torch.bfloat16, perturbed: bool = False) -> dict[str, Any]:
    """Twelve tokens of pictures, nine of sound, and a prompt."""
    generator = torch.Generator().manual_seed(0)
    widths = (TEXT_WIDTH, TEXT_WIDTH) if network.config.use_prompt_embeddings else (WIDTH, AUDIO_WIDTH)
    shapes = ((12, 128), (9, 128), *((1024, width) for width in widths))
    noise = [torch.randn(1, *shape, generator=generator).to(dtype) for shape in shapes]
    names = ("hidden_states", "audio_hidden_states", "encoder_hidden_states", "audio_encoder_hidden_states")
    timestep, mask = torch.tensor([500.0]), torch.ones(1, 1024, dtype=torch.bool)
    return {
        **dict(zip(names, noise, strict=True)),
        **dict.fromkeys(("timestep", "audio_timestep", "sigma"), timestep),
        **dict.fromkeys(("encoder_attention_mask", "audio_encoder_attention_mask"), mask),
        "num_frames": 3,
        "height": 2,
        "width": 2,
        "fps": 24.0,
        "audio_num_frames": 9,
        "return_dict": False,
        "spatio_temporal_guidance_blocks": [1] if perturbed else None,
    }


@torch.inference_mode()
def answers(network: Any, **question: Any) -> list[Tensor]:
    return [part.float() for part in network(**asked(network, **question))]


def differences(new: list[Tensor], old: list[Tensor]) -> list[float]:
    """Relative, of each part."""
    return [float((one.float() - other.float()).norm() / other.float().norm()) for one, other in zip(new, old, strict=True)]


def memory_of(network: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


def transformer_of(family: LTX2Family, **fused: str) -> Any:
    return JointNetwork(family, "transformer", device=CPU, **fused)._transformer


# Options


def test_options_come_from_the_config_as_they_are(folder_of: FolderOf):
    weights = str(folder_of("2.3"))
    made = cast(LTX2Family, FamilyArgs(name="ltx2", weights=weights, precision="float8", attention="native", tiling="always").make())
    assert made.fitting == Fitting(precision="float8", attention="native", tiling="always") and made.dtype == torch.bfloat16
    assert cast(LTX2Family, FamilyArgs(name="ltx2", weights=weights).make()).fitting == WHOLE_FITTING


@pytest.mark.parametrize("option", OPTIONS)
def test_an_unknown_value_is_refused_with_those_there_are(option: str):
    with pytest.raises(ConfigError, match=f"{option} 'fast' of ltx2 is unknown; it is one of .*{OPTIONS[option][-1]}"):
        Fitting(**{option: "fast"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"compile": True, "offload": "group"},
        {"compile": True, "precision": "float8"},
        {"attention": "flash3", "precision": "float32"},
    ],
)
def test_what_does_not_go_together_is_refused_when_the_config_is_read(options: dict[str, Any], folder_of: FolderOf):
    with pytest.raises(ConfigError, match="leave"):
        FamilyArgs(name="ltx2", weights=str(folder_of("2.3")), **options).make()


@pytest.mark.parametrize("option", [{"compile": True}, {"attention": "native"}, {"offload": "group"}, {"tiling": "never"}])
def test_other_families_have_no_such_options(option: dict[str, Any]):
    with pytest.raises(Exception, match=f"family miniature has one form only: leave out {next(iter(option))}"):
        make_family("miniature", **option)


@pytest.mark.parametrize("option", ["precision", "compile", "attention", "tiling"])
def test_what_changes_the_last_bits_changes_the_fingerprint(option: str, family_of: FamilyOf):
    other = True if option == "compile" else OPTIONS[option][-1]
    assert asdict(family_of(**{option: other}).fitting) != asdict(WHOLE_FITTING)
    assert family_of(**{option: other}).fingerprint != family_of().fingerprint


CARDS = {"cpu": fits.Card("cpu"), "A100": fits.Card("cuda", (8, 0)), "L4": fits.Card("cuda", (8, 9)), "H100": fits.Card("cuda", (9, 0))}
REFUSED = {("float8", "none"): {"A100"}, ("bfloat16", "group"): {"cpu"}, ("float8", "group"): {"cpu", "A100"}, ("bfloat16", "none"): set()}


@pytest.mark.parametrize(("options", "card"), [*itertools.product(REFUSED, CARDS)])
def test_a_card_is_refused_what_it_does_not_have(options: tuple[str, str], card: str):
    wanted = Fitting(precision=options[0], offload=options[1])
    if card not in REFUSED[options]:
        fits.check_card(wanted, CARDS[card])
        return
    with pytest.raises(ConfigError, match=r"take bfloat16|leave offload out"):
        fits.check_card(wanted, CARDS[card])


def test_a_stage_that_cannot_offload_does_not_start(family_of: FamilyOf):
    with pytest.raises(ConfigError, match="the device is cpu"):
        LTX2TextEncoding(family_of(offload="group"), device=CPU)
    with pytest.raises(ConfigError, match="the device is cpu"):
        JointNetwork(family_of(offload="group"), "transformer", device=CPU)


# float8


@pytest.mark.parametrize("version", VERSIONS)
def test_float8_halves_the_transformer_and_stays_near(version: str, family_of: FamilyOf):
    wide, narrow = (transformer_of(family_of(version, precision=precision)) for precision in ("bfloat16", "float8"))
    assert memory_of(narrow) < 0.55 * memory_of(wide)
    # Three bits of a mantissa in two blocks of random weights; bfloat16 is 0.01 from float32 here.
    assert max(differences(answers(narrow), answers(wide))) < 0.1
    assert max(differences(answers(narrow), answers(wide))) > 0


def test_norms_and_tables_stay_wide(family_of: FamilyOf):
    kept = {key for key, weight in transformer_of(family_of(precision="float8")).named_parameters() if weight.dtype == torch.bfloat16}
    assert {key for key in kept if "norm" not in key and "table" not in key} == {
        *(f"{end}.{part}" for end in ("proj_in", "proj_out") for part in ("weight", "bias"))
    }


@pytest.mark.parametrize("version", ["2.0", "2.5"])
def test_float8_halves_the_layers_of_the_text_encoder_but_not_its_embedding(version: str, family_of: FamilyOf):
    wide, narrow = (LTX2TextEncoding(family_of(version, precision=precision), device=CPU) for precision in ("bfloat16", "float8"))
    layers, before = (stage._encoder.model.language_model for stage in (narrow, wide))
    assert memory_of(layers.layers) < 0.55 * memory_of(before.layers)
    # Its scale would be rounded with it, from 62 to 64 in the real one; the head shares its weights.
    assert layers.embed_tokens.weight.dtype == layers.embed_tokens.embed_scale.dtype == torch.bfloat16
    (first, *states), (first_before, *states_before) = ([*hidden(stage)] for stage in (narrow, wide))
    assert torch.equal(first, first_before) and max(differences(states, states_before)) < 0.2
    embeds = narrow.run(EncodePrompt("rain", "snow"), Silent())
    assert embeds.embeds.dtype == torch.bfloat16 and memory_of(narrow._connectors) == memory_of(wide._connectors)


@torch.inference_mode()
def hidden(stage: LTX2TextEncoding) -> tuple[Tensor, ...]:
    ids = torch.arange(5, 69)[None]
    return stage._encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states


def test_a_lora_is_fused_before_weights_are_narrowed(family_of: FamilyOf):
    wide, narrow = (transformer_of(family_of(precision=precision), fused="distilled") for precision in ("bfloat16", "float8"))
    plain = transformer_of(family_of())
    assert max(differences(answers(narrow), answers(wide))) < 0.1 < min(differences(answers(wide), answers(plain)))


def test_a_requests_lora_stays_wide_beside_narrow_weights_and_leaves_no_trace(family_of: FamilyOf, folder_of: FolderOf):
    make_lora(folder_of("2.3").parent / "loras/style.safetensors", folder_of("2.3"), seed=2)
    wide, narrow = (JointNetwork(family_of(precision=precision), "transformer", device=CPU) for precision in ("bfloat16", "float8"))
    before = answers(narrow._transformer)
    for network in (wide, narrow):
        network.use_loras((LoraUse("style", 1.0),))
    with_lora = answers(narrow._transformer)
    assert max(differences(with_lora, answers(wide._transformer))) < 0.1 < min(differences(with_lora, before))
    factors, wide_factors = (dict(each._transformer.named_parameters()) for each in (narrow, wide))
    loras = [key for key in factors if "lora_" in key]
    assert loras and all(torch.equal(factors[key], wide_factors[key]) for key in loras)
    narrow.use_loras(())
    assert all(torch.equal(now, then) for now, then in zip(answers(narrow._transformer), before, strict=True))


# Attention, offload, compile


@pytest.mark.parametrize(
    ("asked_for", "working", "chosen"),
    [
        ("auto", {"_flash_3", "xformers", "native"}, "_flash_3"),
        ("auto", {"xformers", "native"}, "xformers"),
        ("auto", {"native"}, "native"),
        ("xformers", {"_flash_3", "xformers", "native"}, "xformers"),
        ("native", {"_flash_3", "native"}, "native"),
    ],
)
def test_the_fastest_attention_that_works_is_chosen(asked_for: str, working: set[str], chosen: str):
    assert fits.choose_attention(asked_for, works=working.__contains__) == chosen


def test_an_attention_that_is_asked_for_by_name_and_does_not_work_is_refused():
    with pytest.raises(ConfigError, match="attention flash3 is not installed or does not work on this device"):
        fits.choose_attention("flash3", works={"xformers", "native"}.__contains__)


def test_attention_is_tried_on_the_device():
    backends = {*ATTENTIONS.values(), "_native_math", "_native_cudnn"}
    assert backends <= {backend.value for backend in AttentionBackendName}
    assert {name for name in backends if fits.attention_works(name, CPU, dtype=torch.float32)} == {"native", "_native_math"}


def test_only_attention_without_a_mask_is_replaced(family_of: FamilyOf, monkeypatch: pytest.MonkeyPatch):
    """FlashAttention 3 refuses the masks that prompts come with."""
    monkeypatch.setattr(fits, "attention_works", lambda name, device, dtype: name == "_flash_3")
    transformer = transformer_of(family_of())
    backends = {path: layer.processor._attention_backend for path, layer in transformer.named_modules() if hasattr(layer, "processor")}
    fast = {path for path, backend in backends.items() if backend == "_flash_3"}
    assert {path.rpartition(".")[2] for path in fast} == set(fits.UNMASKED)
    assert {path.rpartition(".")[2] for path in backends.keys() - fast} == set(fits.MASKED)
    masked: set[str] = set()
    for path in backends:
        transformer.get_submodule(path).register_forward_pre_hook(
            lambda layer, args, given, path=path: masked.add(path) if given.get("attention_mask") is not None else None, with_kwargs=True
        )
    fits.use_attention(transformer, "native")
    answers(transformer)
    assert masked == backends.keys() - fast


def test_blocks_that_come_and_go_compute_the_same(family_of: FamilyOf):
    plain, offloaded = transformer_of(family_of()), transformer_of(family_of())
    fits.offload_blocks(offloaded, CPU, in_stream=False)
    assert all(torch.equal(one, other) for one, other in zip(answers(offloaded), answers(plain), strict=True))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is captured runs as it is: a C++ compiler takes half a minute."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: compile_module(module, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_compiled_blocks_are_captured_whole_but_for_the_pass_that_skips_attention(family_of: FamilyOf):
    plain, compiled = (transformer_of(family_of(precision="float32", compile=compiled)) for compiled in (False, True))
    assert all(block._compiled_call_impl is not None for block in compiled.transformer_blocks)
    assert max(differences(answers(compiled, dtype=torch.float32), answers(plain, dtype=torch.float32))) < 1e-6
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    perturbed = (answers(network, dtype=torch.float32, perturbed=True) for network in (compiled, plain))
    assert max(differences(*perturbed)) < 1e-6 and counters["graph_break"]


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_a_lora_in_compiled_blocks_is_heard_and_gone_again(family_of: FamilyOf):
    network, plain = (JointNetwork(family_of(compile=compiled), "transformer", device=CPU) for compiled in (True, False))
    before = answers(network._transformer)
    for each in (network, plain):
        each.use_loras((LoraUse("distilled", 0.5),))
    assert max(differences(answers(network._transformer), answers(plain._transformer))) < 1e-6
    network.use_loras(())
    assert max(differences(answers(network._transformer), before)) < 1e-6


# Tiles


@pytest.mark.parametrize(("length", "size", "shared"), [*itertools.product(range(1, 60, 3), (5, 9, 24), (1, 2, 4))])
def test_spans_cover_the_length_with_equal_tiles_that_share_enough(length: int, size: int, shared: int):
    found = tiles.spans(length, size=size, shared=shared)
    assert found[0][0] == 0 and found[-1][1] == length
    assert {end - start for start, end in found} == {min(size, length)}
    assert all(end - start >= shared for (_, end), (start, _) in itertools.pairwise(found))
    assert len(found) == 1 or length > size + (len(found) - 2) * (size - shared)


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 5, 5), (10, 6, 4), (14, 2, 9), (31, 13, 17)])
def test_tiles_of_what_looks_at_no_neighbour_are_the_whole(shape: tuple[int, int, int]):
    """Any frame or pixel in the wrong place would show."""
    x = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    frames = torch.cat([*through_tiles(spread, x, size=TIGHT, given=LATENTS, made=PIXELS)], dim=2)
    torch.testing.assert_close(frames, spread(x), rtol=1e-6, atol=1e-6)
    again = torch.cat([*through_tiles(gathered, frames, size=TIGHT, given=PIXELS, made=LATENTS)], dim=2)
    torch.testing.assert_close(again, gathered(frames), rtol=1e-6, atol=1e-6)


def spread(latents: Tensor) -> Tensor:
    """Every latent as its pixels, each with its place in it; the first of time is one frame."""
    pixels = repeat(latents, "b c t h w -> b c (t f) (h y) (w x)", f=8, y=32, x=32)
    return (pixels + torch.arange(8).repeat(latents.shape[2])[:, None, None] / 8)[:, :, 7:]


def gathered(frames: Tensor) -> Tensor:
    """The last pixel of every latent."""
    return frames[:, :, ::8, 31::32, 31::32]


@cache
def tiled_and_whole(vae: Any) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """A long wide video, decoded both ways, and the sizes that the decoder saw when it was tiled."""
    seen: list[tuple[int, ...]] = []
    latents = torch.randn(1, 128, 22, 2, 9, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = vae.decode(latents, None, return_dict=False)[0]
        watch = vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
        tiled = torch.cat([*tiles.decoded_parts(vae, latents, tiling="always")], dim=2)
        watch.remove()
    return tiled, whole, seen


@pytest.fixture
def decoded(family_of: FamilyOf, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Tensor, Tensor, list[tuple[int, ...]]]]:
    monkeypatch.setattr(tiles, "TILE", TIGHT)
    return lambda version: tiled_and_whole(family_of(version, precision="float32").load("vae"))


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_a_long_video_is_tiled_in_time_as_well_as_in_space(version: str, decoded: Any):
    """Trap: `enable_tiling` alone leaves time whole, and the memory with it."""
    tiled, whole, seen = decoded(version)
    assert tiled.shape == whole.shape and len(seen) == 4 * 3
    assert set(seen) == {(TIGHT.frames, 2, TIGHT.side)}


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_a_tiled_video_is_the_whole_one_but_near_seams(version: str, decoded: Any):
    """Random weights look further than trained ones do."""
    tiled, whole, _ = decoded(version)
    away = (tiled - whole).abs().mean(dim=(0, 1, 3))  # by frame and column
    assert away[:8, :32].mean() < 0.08 * whole.std() and away.mean() < 0.3 * whole.std()
    nearest = [int((whole - tiled[:, :, [frame]]).abs().mean(dim=(0, 1, 3, 4)).argmin()) for frame in range(0, whole.shape[2], 5)]
    assert nearest == [*range(0, whole.shape[2], 5)], "diffusers' own tiling in time is one frame late from the second tile on"


def test_an_encoder_sees_tiles_too(family_of: FamilyOf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiles, "TILE", TIGHT)
    vae: Any = family_of(precision="float32").load("vae")
    frames = torch.rand(1, 3, 105, 64, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen: list[tuple[int, ...]] = []
    with torch.inference_mode():
        whole = vae.encode(frames).latent_dist.mode()
        vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
        tiled = tiles.encoded(vae, frames, tiling="always")
    assert set(seen) == {(65, 64, 160)} and tiled.shape == whole.shape == (1, 128, 14, 2, 6)
    away = (tiled - whole).abs().mean(dim=(0, 1, 3))
    assert away[:4, :2].mean() < 0.1 * whole.std() and away.mean() < 0.35 * whole.std()


@pytest.mark.parametrize(
    ("tiling", "latents", "tiled"),
    [("auto", 16 * 22 * 40, False), ("auto", 16 * 22 * 40 + 1, True), ("always", 1, True), ("never", 10**9, False)],
)
def test_large_videos_are_tiled_unless_told_otherwise(tiling: str, latents: int, tiled: bool):
    assert tiles.choose_tile(tiling, latents) == (tiles.TILE if tiled else tiles.WHOLE)


def test_the_decoder_shows_a_tiled_video_in_full_and_what_clips_share_once(family_of: FamilyOf, monkeypatch: pytest.MonkeyPatch):
    """The first part of the second clip is shorter than what both share."""
    monkeypatch.setattr(tiles, "TILE", TileSize(frames=3, side=4, shared_frames=1, shared_side=1))
    decoder = LTX2VAEDecoder(family_of(tiling="always"), device=CPU)
    clips = [Latents(torch.randn(1, 128, 7, 2, 2, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1)]
    overlap, shape = 25, VideoShape(num_frames=2 * 49 - 25, height=64, width=64, frame_rate=24.0)
    call = DecodeVideo(tuple(clips), shape, overlap=overlap)
    with torch.inference_mode():
        shown = torch.cat([*decoder._frames(call, Silent())], dim=1)
        alone = [torch.cat([*decoder._frames(DecodeVideo((clip,), shape), Silent())], dim=1) for clip in clips]
    assert torch.equal(shown, torch.cat([alone[0], alone[1][:, overlap:]], dim=1)) and shown.shape[1] == shape.num_frames
