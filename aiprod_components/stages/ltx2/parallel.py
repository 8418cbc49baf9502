"""tokens of pictures -> a share on each rank, whole only in attention, a share of its heads -> velocities of all tokens on each rank

Ulysses (https://arxiv.org/abs/2309.14509) for LTX-2's transformer. Each rank has its share of the picture's tokens and all of the sound's
and the text's. What a token does alone, and what it reads of sound and text, is computed where the token is. Where tokens of pictures are
read, by each other (`attn1`) or by sound (`video_to_audio_attn`), a rank gets all of them for its share of the heads. Few are the
tokens of sound: every rank has them all, and computes the same.

diffusers' own plan (`_cp_plan`) splits rotary embeddings where interleaved ones have their tokens: split ones, which every LTX-2 has,
crash. Here positions are split instead, so embeddings of either form are born as those of the share; so are the timesteps of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_ltx2 import apply_interleaved_rotary_emb, apply_split_rotary_emb
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aiprod_components.errors import ConfigError, InvalidRequestError

Rotation = tuple[Tensor, Tensor]  # cosines and sines
ROTATE: dict[str, Callable[[Tensor, Rotation], Tensor]] = {
    "interleaved": apply_interleaved_rotary_emb,
    "split": apply_split_rotary_emb,
}

# What is of the picture's tokens among the transformer's arguments, and where.
OF_TOKENS = {"hidden_states": 1, "video_coords": 2, "video_keyframes_mask": 1}


@dataclass
class Shares:
    """How many tokens each rank has in the forward that is under way."""

    group: dist.ProcessGroup
    sizes: list[int] = field(default_factory=list)

    @property
    def ranks(self) -> int:
        return self.group.size()

    @property
    def own(self) -> int:
        return self.sizes[self.group.rank()]

    def divide(self, tokens: int) -> None:
        """Raises InvalidRequestError when there are fewer tokens than ranks."""
        if tokens < self.ranks:
            raise InvalidRequestError(f"{tokens} tokens are too few for {self.ranks} ranks to share; ask for a larger or a longer video")
        each, over = divmod(tokens, self.ranks)
        self.sizes = [each + (rank < over) for rank in range(self.ranks)]

    def of(self, whole: Tensor, *, dim: int) -> Tensor:
        """This rank's."""
        return whole.split(self.sizes, dim=dim)[self.group.rank()]

    def heads_of(self, whole: Float[Tensor, "B T H D"]) -> Float[Tensor, "B T h D"]:
        return whole.chunk(self.ranks, dim=2)[self.group.rank()]

    def by_heads(self, x: Float[Tensor, "B s H D"]) -> Float[Tensor, "B S h D"]:
        """Some tokens with all heads -> all tokens with some heads."""
        parts = rearrange(x, "b s (n h) d -> (n s) b h d", n=self.ranks)
        return rearrange(self._exchange(parts, sent=[self.own] * self.ranks, received=self.sizes), "s b h d -> b s h d")

    def by_tokens(self, x: Float[Tensor, "B S h D"]) -> Float[Tensor, "B s H D"]:
        """All tokens with some heads -> some tokens with all heads."""
        parts = self._exchange(rearrange(x, "b s h d -> s b h d"), sent=self.sizes, received=[self.own] * self.ranks)
        return rearrange(parts, "(n s) b h d -> b s (n h) d", n=self.ranks)

    def all_heads(self, x: Float[Tensor, "B T h D"]) -> Float[Tensor, "B T H D"]:
        parts = self._to_all(rearrange(x, "b t h d -> h b t d"), sizes=[x.shape[2]] * self.ranks)
        return rearrange(parts, "h b t d -> b t h d")

    def all_tokens(self, x: Float[Tensor, "B s C"]) -> Float[Tensor, "B S C"]:
        return rearrange(self._to_all(rearrange(x, "b s c -> s b c"), sizes=self.sizes), "s b c -> b s c")

    def _to_all(self, own: Tensor, *, sizes: list[int]) -> Tensor:
        """What every rank has, one behind the other; unlike `all_gather` it takes shares of different sizes."""
        parts = repeat(own, "r ... -> (n r) ...", n=self.ranks)
        return self._exchange(parts, sent=[own.shape[0]] * self.ranks, received=sizes)

    def _exchange(self, parts: Tensor, *, sent: list[int], received: list[int]) -> Tensor:
        out = parts.new_empty(sum(received), *parts.shape[1:])
        dist.all_to_all_single(out, parts.contiguous(), received, sent, group=self.group)
        return out


class SharedAttention:
    """Attention to tokens of pictures, in place of diffusers' processors, whose arguments it takes."""

    def __init__(self, shares: Shares, *, backend: Any) -> None:
        self._shares = shares
        self._attention_backend = backend  # diffusers sets it here

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "B Q C"],
        encoder_hidden_states: Float[Tensor, "B s K"] | None = None,
        attention_mask: Float[Tensor, "B S S"] | None = None,
        query_rotary_emb: Rotation | None = None,
        key_rotary_emb: Rotation | None = None,
        perturbation_mask: Float[Tensor, "B 1 1"] | None = None,
        all_perturbed: bool | Bool[Tensor, ""] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        value = attn.to_v(seen)
        if all_perturbed:
            attended = value
        else:
            query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(seen))
            if query_rotary_emb is not None:
                rotate = ROTATE[attn.rope_type]
                query, key = rotate(query, query_rotary_emb), rotate(key, key_rotary_emb or query_rotary_emb)
            query, key, values = (rearrange(part, "b t (h d) -> b t h d", h=attn.heads) for part in (query, key, value))
            shared = self._among_tokens if encoder_hidden_states is None else self._from_outside
            attended = rearrange(shared(query, key, values, mask=attention_mask), "b t h d -> b t (h d)")
            if perturbation_mask is not None:
                attended = torch.lerp(value, attended, perturbation_mask)
        if attn.to_gate_logits is not None:
            gates = rearrange(2.0 * torch.sigmoid(attn.to_gate_logits(hidden_states)), "b t h -> b t h 1")
            attended = rearrange(rearrange(attended, "b t (h d) -> b t h d", h=attn.heads) * gates, "b t h d -> b t (h d)")
        out, dropout = attn.to_out
        return dropout(out(attended))

    def _among_tokens(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None) -> Float[Tensor, "B s H D"]:
        """Each rank asks for its tokens."""
        query, key, value = self._shares.by_heads(torch.cat([query, key, value])).chunk(3)
        return self._shares.by_tokens(self._attend(query, key, value, mask))

    def _from_outside(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None) -> Float[Tensor, "B L H D"]:
        """All ranks ask the same, of tokens that each has a share of."""
        key, value = self._shares.by_heads(torch.cat([key, value])).chunk(2)
        return self._shares.all_heads(self._attend(self._shares.heads_of(query), key, value, mask))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        seen = None if mask is None else rearrange(mask, "b q k -> b 1 q k")
        return dispatch_attention_fn(query, key, value, attn_mask=seen, backend=self._attention_backend).to(query.dtype)


def share_tokens(transformer: nn.Module, group: dist.ProcessGroup) -> None:
    """From now on the transformer must be called on every rank of the group, by name, with the same arguments; each gets the whole answer.

    `video_coords` must be among them. Raises ConfigError when the heads cannot be divided among the ranks.
    """
    model: Any = transformer
    for heads in (model.config.num_attention_heads, model.config.audio_num_attention_heads):
        if heads % group.size():
            fitting = [str(ranks) for ranks in range(1, heads + 1) if heads % ranks == 0]
            raise ConfigError(f"{heads} attention heads cannot be shared by {group.size()} ranks; take {', '.join(fitting)}")
    shares = Shares(group)
    for block in model.transformer_blocks:
        for attention in (block.attn1, block.video_to_audio_attn):
            attention.set_processor(SharedAttention(shares, backend=attention.processor._attention_backend))
    transformer.register_forward_pre_hook(lambda _module, args, kwargs: (args, _divided(shares, kwargs)), with_kwargs=True)
    transformer.register_forward_hook(lambda _module, _args, out: (shares.all_tokens(out[0]), *out[1:]))


def _divided(shares: Shares, arguments: dict[str, Any]) -> dict[str, Any]:
    """The transformer's arguments, of this rank's tokens."""
    tokens = arguments["hidden_states"].shape[1]
    shares.divide(tokens)
    own = {name: shares.of(arguments[name], dim=dim) for name, dim in OF_TOKENS.items() if arguments.get(name) is not None}
    timestep = arguments["timestep"]
    return arguments | own | ({"timestep": shares.of(timestep, dim=1)} if timestep.ndim == 2 else {})
