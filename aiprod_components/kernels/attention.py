"""queries, keys, values -> attended values, by the best backend that is installed"""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


@cache
def backend_for(device_type: str) -> str:
    """`xformers` on CUDA where it is installed, otherwise PyTorch's own (`sdpa`)."""
    return "xformers" if device_type == "cuda" and find_spec("xformers") else "sdpa"


def attention(
    q: Float[Tensor, "B Q N D"], k: Float[Tensor, "B K N D"], v: Float[Tensor, "B K N D"], *, mask: Bool[Tensor, "B K"] | None = None
) -> Float[Tensor, "B Q N D"]:
    """Scaled dot-product attention, heads in the third place; keys where `mask` is False are not seen."""
    if mask is None and backend_for(q.device.type) == "xformers":
        from xformers.ops import memory_efficient_attention  # an optional package of CUDA machines

        return memory_efficient_attention(q, k, v)
    q, k, v = (rearrange(part, "b s n d -> b n s d") for part in (q, k, v))
    bias = None if mask is None else torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, float("-inf"))[:, None, None]
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), "b n s d -> b s n d")
