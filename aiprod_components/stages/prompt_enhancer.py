"""prompt, prompts before -> instruction -> language model -> answer, checked -> prompt: the new one, or as it was and why in the log"""

import logging
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from aiprod_components.calls import ENHANCED_TOKENS, EnhancePrompt
from aiprod_components.families.base import Family
from aiprod_components.models.language_model import load_language_model
from aiprod_components.models.prompt_style import as_plain_text, fault_in, make_instruction, read_answer
from aiprod_components.stages.base import Progress

log = logging.getLogger(__name__)


class PromptEnhancing:
    """Raises InvalidRequestError when the family has no language model, CheckpointError when its folder is none."""

    def __init__(self, family: Family, *, device: torch.device) -> None:
        self._model = load_language_model(family.language_model()).to(device)
        self._max_bytes = family.limits.max_prompt_bytes

    def run(self, call: EnhancePrompt, progress: Progress) -> str:
        """The prompt, enhanced; as it was when the model has no good answer, for that is no reason to make no video."""
        prompt, before = cast(str, call.prompt), cast(tuple[str, ...], call.before)
        try:
            enhanced, fault = self._enhance(prompt, before, progress)
        except torch.OutOfMemoryError:
            enhanced, fault = prompt, "the device has no memory left for it"
        if fault is not None:
            log.warning("a prompt stays as it is, the enhancer's answer cannot be used: %s", fault)
        progress.advance(ENHANCED_TOKENS, ENHANCED_TOKENS)
        return enhanced if fault is None else prompt

    def _enhance(self, prompt: str, before: tuple[str, ...], progress: Progress) -> tuple[str, str | None]:
        """What the model makes of the prompt, and why that cannot be used, if so."""
        tokens, room = self._question(prompt, before)
        if room == 0:
            return prompt, f"the question alone is as long as what the model can read, {tokens.shape[1]} tokens"
        answer = self._model.answer(tokens, max_tokens=room, watch=lambda written: progress.advance(written, ENHANCED_TOKENS))
        if not answer.ended:
            return prompt, f"it did not come to an end within {room} tokens"
        enhanced = read_answer(answer.text)
        return enhanced, fault_in(enhanced, prompt=prompt, max_bytes=self._max_bytes)

    def _question(self, prompt: str, before: tuple[str, ...]) -> tuple[Int[Tensor, "1 S"], int]:
        """The question as tokens and how many the answer may have. The oldest prompts are left out until there is room for an answer."""
        while True:
            instruction = make_instruction(prompt, before=before, max_bytes=self._max_bytes)
            tokens = self._model.encode(instruction if self._model.chats else as_plain_text(instruction))
            context = self._model.room_after(tokens)
            room = ENHANCED_TOKENS if context is None else min(context, ENHANCED_TOKENS)
            if room == ENHANCED_TOKENS or not before:
                return tokens, room
            before = before[1:]
