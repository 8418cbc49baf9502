"""queries, keys, values -> attended values, by the best backend that is installed"""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

SHORT = 1024  # keys: up to here two plain matrix products beat PyTorch's fused kernel on a CPU (by a quarter at 144, bf16, trained)


@cache
def backend_for(device_type: str) -> str:
    """`xformers` on CUDA where it is installed, otherwise PyTorch's own (`sdpa`); on a CPU `matmul` for short sequences."""
    if device_type == "cpu":
        return "matmul"
    return "xformers" if device_type == "cuda" and find_spec("xformers") else "sdpa"


def attention(
    q: Float[Tensor, "B Q N D"], k: Float[Tensor, "B K N D"], v: Float[Tensor, "B K N D"], *, mask: Bool[Tensor, "B K"] | None = None
) -> Float[Tensor, "B Q N D"]:
    """Scaled dot-product attention, heads in the third place; keys where `mask` is False are not seen."""
    backend = backend_for(q.device.type)
    if mask is None and backend == "xformers":
        from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]  # optional, on CUDA machines

        return memory_efficient_attention(q, k, v)
    q, k, v = (rearrange(part, "b s n d -> b n s d") for part in (q, k, v))
    seen = None if mask is None else rearrange(mask, "b k -> b 1 1 k")
    attended = _matmul_attention(q, k, v, seen) if backend == "matmul" and k.shape[2] <= SHORT else _fused_attention(q, k, v, seen)
    return rearrange(attended, "b n s d -> b s n d")


def _matmul_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ rearrange(k, "b n s d -> b n d s")
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    bias = None if seen is None else torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
