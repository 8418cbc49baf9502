"""prompts -> tokens and matched video terms -> hidden states -> prompt embeds

A T5-family encoder (mt5 for `aiprod`, a small byte-level one for `miniature`) that also knows 500 terms of the video
trade: each has an embedding of its own, added to the tokens where the prompt says it.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aiprod_components.models.video_vocabulary import NUM_TERMS, match_terms


@dataclass(frozen=True)
class TextEncoderConfig:
    """A T5 encoder with gated GELU feed-forwards; `tokenizer` is "bytes" or the path of a `transformers` folder.

    `neighbours` is how many tokens a convolution sees before the transformer: bytes need it, to be words; subwords do not (0).
    """

    tokenizer: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    head_width: int
    feed_forward: int
    max_tokens: int
    output_width: int = 256
    neighbours: int = 0


class Tokens(NamedTuple):
    """Token ids, which of them are not padding, and the video term said at each (0 = none, else term id + 1)."""

    ids: Int[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    terms: Int[Tensor, "B S"]

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(*(part.to(device) for part in self))


@runtime_checkable
class Tokenizer(Protocol):
    def __call__(self, prompts: list[str]) -> Tokens: ...


class ByteTokenizer:
    """UTF-8 bytes as tokens, ByT5's numbering (Xue et al. 2021): 0 pads, 1 ends, byte b is b + 3. Every language, no file."""

    PAD, END, OFFSET = 0, 1, 3

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    def __call__(self, prompts: list[str]) -> Tokens:
        rows = [self._row(prompt) for prompt in prompts]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [self.PAD] * (width - len(row)) for row, _ in rows])
        terms = torch.tensor([row + [0] * (width - len(row)) for _, row in rows])
        return Tokens(ids, ids != self.PAD, terms)

    def _row(self, prompt: str) -> tuple[list[int], list[int]]:
        terms = [0] * len(prompt.encode())
        for match in match_terms(prompt):
            start, end = len(prompt[: match.start].encode()), len(prompt[: match.end].encode())
            terms[start:end] = [match.term + 1] * (end - start)
        kept = self.max_tokens - 1
        ids = [byte + self.OFFSET for byte in prompt.encode()][:kept]
        return [*ids, self.END], [*terms[:kept], 0]


class FolderTokenizer:
    """A fast tokenizer from a `transformers` folder; its character offsets say which tokens a video term covers."""

    def __init__(self, folder: str, max_tokens: int) -> None:
        from transformers import AutoTokenizer  # slow to import, and only this tokenizer needs it

        self._tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
        self.max_tokens = max_tokens

    def __call__(self, prompts: list[str]) -> Tokens:
        batch = self._tokenizer(
            prompts, padding=True, truncation=True, max_length=self.max_tokens, return_offsets_mapping=True, return_tensors="pt"
        )
        terms = torch.zeros_like(batch["input_ids"])
        for row, prompt in enumerate(prompts):
            starts, ends = batch["offset_mapping"][row].unbind(dim=1)
            for match in match_terms(prompt):
                terms[row, (starts < match.end) & (ends > match.start)] = match.term + 1
        return Tokens(batch["input_ids"], batch["attention_mask"].bool(), terms)


def make_tokenizer(config: TextEncoderConfig) -> Tokenizer:
    """The tokenizer that a config names. Raises what `transformers` raises when its folder cannot be read."""
    if config.tokenizer == "bytes":
        return ByteTokenizer(config.max_tokens)
    return FolderTokenizer(config.tokenizer, config.max_tokens)


class TextEncoder(nn.Module):
    """Tokens -> prompt embeds of `output_width`, normalized per token."""

    def __init__(self, config: TextEncoderConfig) -> None:
        from transformers import T5Config, T5EncoderModel  # half of what the package took to import, and only this stage needs it

        super().__init__()
        self.config = config
        self.transformer = T5EncoderModel(
            T5Config(
                vocab_size=config.vocabulary,
                d_model=config.hidden,
                d_kv=config.head_width,
                d_ff=config.feed_forward,
                num_layers=config.layers,
                num_heads=config.heads,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
        self.terms = nn.Embedding(NUM_TERMS + 1, config.hidden, padding_idx=0)
        self.spell = nn.Conv1d(config.hidden, config.hidden, config.neighbours, padding="same") if config.neighbours else None
        self.project = nn.Linear(config.hidden, config.output_width)
        nn.init.normal_(self.terms.weight, std=0.02)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B S E"]:
        said = (tokens.terms > 0).unsqueeze(-1)
        embeds = self.transformer.get_input_embeddings()(tokens.ids) + self.terms(tokens.terms) * said
        if self.spell is not None:
            # Padding is zeroed first, so that a prompt's last letters look the same beside it as at the end of a batch.
            letters = rearrange(embeds * tokens.mask[..., None], "b s e -> b e s")
            embeds = embeds + rearrange(F.silu(self.spell(letters)), "b e s -> b s e")
        hidden = self.transformer(inputs_embeds=embeds, attention_mask=tokens.mask).last_hidden_state
        return F.layer_norm(self.project(hidden), (self.config.output_width,))
