"""LTX-2's transformer, tokens, kind of pass -> floating-point operations

A multiplication and an addition are two. Counted are matrix products: linear layers (2 x tokens x in x out) and attention (4 x queries x
keys x width: scores, then values). Norms, rotations, gates' products and activations are left out: they are below a hundredth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_components.calls import Pass

CHANNELS = 128  # of latents, and of sound
FREQUENCIES = 256  # of a noise level before it is embedded
# How many tables each noise level is projected to: those of the blocks, then of the attention between pictures and sound.
TABLES, CROSS_TABLES, PROMPT_TABLES = 9, 4 + 1, 2


@dataclass(frozen=True)
class Tokens:
    """Of one row of the batch."""

    pictures: int
    sound: int
    prompt: int


@dataclass(frozen=True)
class Side:
    """What attends or is attended to."""

    tokens: int
    width: int


def flops_of(config: Mapping[str, Any], tokens: Tokens, *, kind: Pass, skipped_blocks: int = 0) -> int:
    """Of one row of a pass, for the transformers of 2.3 and 2.5; `skipped_blocks` of a perturbed pass skip their self-attention."""
    heads, audio_heads = config["num_attention_heads"], config["audio_num_attention_heads"]
    pictures = Side(tokens.pictures, heads * config["attention_head_dim"])
    sound = Side(tokens.sound, audio_heads * config["audio_attention_head_dim"])
    both = ((pictures, heads, config["cross_attention_dim"]), (sound, audio_heads, config["audio_cross_attention_dim"]))
    block = ends = skipped = 0
    for side, own_heads, prompt_width in both:
        block += _attention(side, side, inner=side.width, heads=own_heads)
        block += _attention(side, Side(tokens.prompt, prompt_width), inner=side.width, heads=own_heads)
        block += 2 * _linear(side.tokens, side.width, 4 * side.width)
        ends += 2 * _linear(side.tokens, CHANNELS, side.width) + _noise_level(side.width)
        skipped += _queries_and_keys(side)
    if kind != "isolated":
        block += _attention(pictures, sound, inner=sound.width, heads=audio_heads)
        block += _attention(sound, pictures, inner=sound.width, heads=audio_heads)
    return config["num_layers"] * block + ends - (skipped_blocks * skipped if kind == "perturbed" else 0)


def _attention(queries: Side, keys: Side, *, inner: int, heads: int) -> int:
    projections = _linear(queries.tokens, queries.width, inner) * 2 + _linear(keys.tokens, keys.width, inner) * 2
    return projections + _linear(queries.tokens, queries.width, heads) + 4 * queries.tokens * keys.tokens * inner


def _queries_and_keys(side: Side) -> int:
    """What self-attention does besides handing its values on."""
    return 2 * _linear(side.tokens, side.width, side.width) + 4 * side.tokens * side.tokens * side.width


def _noise_level(width: int) -> int:
    """Embedded four times, and projected to its tables."""
    tables = TABLES + CROSS_TABLES + PROMPT_TABLES
    return 4 * (_linear(1, FREQUENCIES, width) + _linear(1, width, width)) + _linear(1, width, tables * width)


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs
