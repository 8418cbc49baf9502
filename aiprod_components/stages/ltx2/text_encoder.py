"""prompt, negative prompt -> hidden states of all layers -> connectors -> what pictures and sound each read of them

The connectors run here: the hidden states of all layers are 385 MB a prompt, what comes out of the connectors is 6.
"""

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor

from aiprod_components.calls import EncodePrompt
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.base import Progress
from aiprod_components.stages.ltx2.fitting import fit_encoder
from aiprod_components.values import PromptEmbeds

MAX_TOKENS = 1024  # to which every prompt is filled up


class LTX2TextEncoding:
    def __init__(self, family: LTX2Family, *, device: torch.device) -> None:
        self._encoder: Any = fit_encoder(family.load("text_encoder"), family.fitting, device=device)
        self._connectors: Any = family.load("connectors").to(device)
        self._tokenizer = family.tokenizer()
        # Gemma was trained on prompts filled up in front.
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._device = device

    @torch.inference_mode()
    def run(self, call: EncodePrompt, progress: Progress) -> PromptEmbeds:
        """With a negative prompt both go through the connectors together: in a batch of one the last bits would differ."""
        texts = [text for text in (call.negative_prompt, cast(str, call.prompt)) if text is not None]
        states, masks = zip(*(self._read(text) for text in texts), strict=True)
        parts = self._connectors(torch.cat(states), torch.cat(masks), padding_side="left")  # for pictures, for sound, where they are
        progress.advance(1, 1)
        (embeds, audio_embeds, mask), *steered_from = reversed(list(zip(*(part.cpu().split(1) for part in parts), strict=True)))
        if not steered_from:
            return PromptEmbeds(embeds, mask.bool(), audio_embeds=audio_embeds)
        ((negative, negative_audio, negative_mask),) = steered_from
        return PromptEmbeds(embeds, mask.bool(), negative, negative_mask.bool(), audio_embeds, negative_audio)

    def _read(self, text: str) -> tuple[Tensor, Tensor]:
        """Hidden states of all layers side by side, 1 x tokens x (width x layers), and where the text is."""
        tokens = self._tokenizer(
            [text.strip()], padding="max_length", max_length=MAX_TOKENS, truncation=True, add_special_tokens=True, return_tensors="pt"
        ).to(self._device)
        layers = self._encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True).hidden_states
        return rearrange(torch.stack(layers, dim=-1), "b s e l -> b s (e l)"), tokens.attention_mask
