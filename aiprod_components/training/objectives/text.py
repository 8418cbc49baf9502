"""captions in every language -> prompt embeds -> what the caption says of the scene

The encoder learns to say, from its embeds alone, which value each slot of the scene has, or that the caption is silent.
"""

import random
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from aiprod_components.miniature.captions import LANGUAGES, SLOTS, Caption, write_caption
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.checkpoint import save_model
from aiprod_components.models.text_encoder import TextEncoder, TextEncoderConfig, make_tokenizer
from aiprod_components.training.config import BaseRecipe
from aiprod_components.training.dataset import draw_seeds, scenes_of, step_rng

SILENT = 0  # the class of a slot that the caption does not state; value k is class k + 1


class TextRecipe(BaseRecipe):
    component: Literal["text_encoder"]
    model: TextEncoderConfig
    batch: PositiveInt
    pass_size: PositiveInt
    mix: SceneMix
    english_share: float = Field(ge=0, le=1)
    drop: float = Field(ge=0, le=1)


class SlotReader(nn.Module):
    """Reads every slot from prompt embeds: a learned query gathers the tokens, a linear layer names the value."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.config = encoder.config
        self.encoder = encoder
        width = encoder.config.output_width
        self.queries = nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.values = nn.ModuleList([nn.Linear(width, len(values) + 1) for values in SLOTS.values()])

    def read(self, embeds: Float[Tensor, "B S E"], mask: Bool[Tensor, "B S"]) -> list[Float[Tensor, "B V"]]:
        scores = einsum(embeds, self.queries, "b s e, n e -> b n s").masked_fill(~mask[:, None], float("-inf"))
        gathered = scores.softmax(dim=-1).to(embeds.dtype) @ embeds
        return [layer(gathered[:, n]) for n, layer in enumerate(self.values)]


def answers(captions: list[Caption]) -> Tensor:
    """The class of every slot of every caption, (batch, slots)."""
    return torch.tensor(
        [[values.index(c.attributes[slot]) + 1 if slot in c.attributes else SILENT for slot, values in SLOTS.items()] for c in captions]
    )


class TextObjective:
    def __init__(self, recipe: TextRecipe, *, output: Path) -> None:
        self.recipe, self.output, self.device = recipe, output, torch.device(recipe.device)
        torch.manual_seed(recipe.seed)
        self.model = SlotReader(TextEncoder(recipe.model))
        self.tokenize = make_tokenizer(recipe.model)

    def loss(self, step: int) -> dict[str, Tensor]:
        captions = sorted(self._captions(step_rng(self.recipe.seed, step)), key=lambda caption: len(caption.text.encode()))
        # Captions of like length share a pass: scripts differ threefold in bytes, and padding is paid for squared.
        passes = [self._read(captions[start : start + self.recipe.pass_size]) for start in range(0, len(captions), self.recipe.pass_size)]
        return {name: torch.stack([figures[name] for figures in passes]).mean() for name in passes[0]}

    def _read(self, captions: list[Caption]) -> dict[str, Tensor]:
        tokens = self.tokenize([caption.text for caption in captions]).to(self.device)
        predictions = self.model.read(self.model.encoder(tokens), tokens.mask)
        right = answers(captions).to(self.device)
        losses = [F.cross_entropy(predicted.float(), right[:, n]) for n, predicted in enumerate(predictions)]
        found = torch.stack([predicted.argmax(dim=-1) for predicted in predictions], dim=1)
        stated = right != SILENT
        return {"loss": torch.stack(losses).mean(), "accuracy": (found == right)[stated].float().mean()}

    def finish(self, model: nn.Module) -> None:
        assert isinstance(model, SlotReader)
        save_model(model.encoder, self.output / "text_encoder", dtype=torch.float16)

    def _captions(self, rng: random.Random) -> list[Caption]:
        scenes = scenes_of(draw_seeds(rng, self.recipe.batch), mix=self.recipe.mix)
        return [write_caption(scene, language=self._language(rng), rng=rng, drop=rng.random() * self.recipe.drop) for scene in scenes]

    def _language(self, rng: random.Random) -> str:
        return "en" if rng.random() < self.recipe.english_share else rng.choice(LANGUAGES)
