"""prompt, negative prompt -> prompt embeds"""

from typing import cast

import torch

from aiprod_components.calls import EncodePrompt
from aiprod_components.families.base import Family
from aiprod_components.models.text_encoder import TextEncoder, make_tokenizer
from aiprod_components.stages.base import Progress
from aiprod_components.values import PromptEmbeds


class TextEncoding:
    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._encoder = cast(TextEncoder, family.load("text_encoder")).to(device)
        self._tokenize = make_tokenizer(self._encoder.config)
        self._device = device

    def run(self, call: EncodePrompt, progress: Progress) -> PromptEmbeds:
        embeds, mask = self._encode(cast(str, call.prompt))
        negative = (None, None) if call.negative_prompt is None else self._encode(call.negative_prompt)
        progress.advance(1, 1)
        return PromptEmbeds(embeds, mask, *negative)

    @torch.inference_mode()
    def _encode(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self._tokenize([prompt])
        embeds = self._encoder(tokens.to(self._device))
        return embeds.float().cpu(), tokens.mask
