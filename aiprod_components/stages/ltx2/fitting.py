"""a network as it was loaded -> narrowed, with the attention that works, on its device or fetched there block by block, compiled"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo.config as dynamo  # there is no public name for the one setting that is needed
from torch import nn

from aiprod_components.errors import ConfigError
from aiprod_components.families.ltx2_fitting import ATTENTIONS, AUTO, FLOAT8, GROUP, Fitting
from aiprod_components.stages.ltx2.cache import cache_blocks

NARROW = torch.float8_e4m3fn
FLOAT8_CAPABILITY = (8, 9)  # Ada
# Stay wide besides norms: rows of tokens are summed nowhere, and an embedding's scale (62) would become 64. The head shares its weights.
WIDE_IN_ENCODERS = ("norm", "embed", "lm_head")
# What attends without a mask; FlashAttention 3 takes none, and prompts come with one.
UNMASKED = ("attn1", "audio_attn1", "audio_to_video_attn", "video_to_audio_attn")
MASKED = ("attn2", "audio_attn2")
PROBE = (1, 64, 2, 128)  # batch, tokens, heads, width: the heads are as wide as LTX-2's
# A block is compiled once for every kind of pass (four), batch, and way of giving noise levels, then again for sizes that vary; at the
# default of 8 a server would fall back to uncompiled blocks without a word.
VARIANTS = 64


@dataclass(frozen=True)
class Card:
    """What a device is; `capability` is CUDA's."""

    kind: str
    capability: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, device: torch.device) -> "Card":
        return cls(device.type, torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0))


def check_card(fitting: Fitting, card: Card) -> None:
    """Raises ConfigError for options that this device does not have."""
    if fitting.offload == GROUP and card.kind != "cuda":
        raise ConfigError(
            f"offload: group spares a CUDA card, and the device is {card.kind}; leave offload out, or give the stage num_gpus"
        )
    if fitting.precision == FLOAT8 and card.kind == "cuda" and card.capability < FLOAT8_CAPABILITY:
        raise ConfigError(
            f"precision: float8 needs a card of compute capability {_version(FLOAT8_CAPABILITY)} (Ada, Hopper or newer), this one has "
            f"{_version(card.capability)}; take bfloat16, with offload: group where it does not fit"
        )


def fit_transformer(transformer: Any, fitting: Fitting, *, device: torch.device) -> Any:
    """The transformer itself, made ready in place, where it fits. LoRAs that are fused must be so before. Raises ConfigError."""
    check_card(fitting, Card.of(device))
    if fitting.precision == FLOAT8:
        # Before it goes to the card, which need not have room for it as it was.
        transformer.enable_layerwise_casting(storage_dtype=NARROW, compute_dtype=fitting.dtype)
    use_attention(transformer, choose_attention(fitting.attention, works=lambda name: attention_works(name, device, dtype=fitting.dtype)))
    if fitting.offload == GROUP:
        offload_blocks(transformer, device, in_stream=True)
    else:
        transformer.to(device)
    if fitting.compile:
        compile_blocks(transformer)
    if fitting.cache:
        cache_blocks(transformer, threshold=fitting.cache)
    return transformer


def fit_encoder(encoder: Any, fitting: Fitting, *, device: torch.device) -> Any:
    """The text encoder itself, made ready in place. Raises ConfigError."""
    from diffusers.hooks.group_offloading import apply_group_offloading
    from diffusers.hooks.layerwise_casting import apply_layerwise_casting

    check_card(fitting, Card.of(device))
    if fitting.precision == FLOAT8:
        apply_layerwise_casting(encoder, storage_dtype=NARROW, compute_dtype=fitting.dtype, skip_modules_pattern=WIDE_IN_ENCODERS)
    if fitting.offload == GROUP:
        # Not in a stream of its own: that learns the order of layers from the first pass, and most prompts come without pictures.
        apply_group_offloading(encoder, onload_device=device, offload_type="leaf_level")
        return encoder
    return encoder.to(device)


def choose_attention(asked: str, *, works: Callable[[str], bool]) -> str:
    """The fastest that works, or the one that is asked for, by diffusers' names. Raises ConfigError when that does not work."""
    if asked == AUTO:
        return next(name for name in ATTENTIONS.values() if works(name))
    if not works(ATTENTIONS[asked]):
        raise ConfigError(f"attention {asked} is not installed or does not work on this device; install it, or leave attention out")
    return ATTENTIONS[asked]


def attention_works(name: str, device: torch.device, *, dtype: torch.dtype) -> bool:
    """Tried on a few tokens: what is installed may be built for other cards, or for other numbers."""
    from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

    q, k, v = torch.randn(3, *PROBE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with torch.inference_mode(), attention_backend("native"):
        expected = dispatch_attention_fn(q, k, v)
    try:
        with torch.inference_mode(), attention_backend(name):
            attended = dispatch_attention_fn(q, k, v)
    # ValueError, TypeError: it does not take such tensors.
    except (RuntimeError, ImportError, NotImplementedError, ValueError, TypeError):
        return False
    return torch.allclose(attended, expected, rtol=0.05, atol=0.05)


def use_attention(transformer: nn.Module, name: str) -> None:
    """Where no mask is; the prompt is attended to by PyTorch's own."""
    for path, layer in transformer.named_modules():
        kind = path.rpartition(".")[2]
        if kind in (*UNMASKED, *MASKED):
            attention: Any = layer
            attention.set_attention_backend(name if kind in UNMASKED else ATTENTIONS["native"])


def offload_blocks(transformer: Any, device: torch.device, *, in_stream: bool) -> None:
    """In a stream the next block comes while the last one works."""
    transformer.enable_group_offload(
        onload_device=device, offload_type="block_level", num_blocks_per_group=1, use_stream=in_stream, record_stream=in_stream
    )


def compile_blocks(transformer: Any) -> None:
    """One block is compiled for all.

    Not as one graph each: the pass that skips self-attention asks a tensor which way to go, and breaks its block's graph there. A LoRA
    that a request brings compiles the blocks once more, and so does the first request without it afterwards; where every request brings
    another, compiling is a loss.
    """
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    transformer.compile_repeated_blocks()


def load_lora(transformer: Any, factors: Mapping[str, Any], *, name: str, fitting: Fitting) -> None:
    """Beside the weights, in the precision that is computed in. Raises ValueError, KeyError or RuntimeError when it does not belong."""
    transformer.load_lora_adapter(dict(factors), adapter_name=name, prefix="transformer")
    if fitting.precision != FLOAT8:
        return
    # It has become as narrow as the weights beside it, which nothing multiplies by: widened, and read once more.
    for key, factor in transformer.named_parameters():
        if "lora_" in key and factor.dtype == NARROW:
            factor.data = factor.data.to(fitting.dtype)
    transformer.load_lora_adapter(dict(factors), adapter_name=name, prefix="transformer", hotswap=True)


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
