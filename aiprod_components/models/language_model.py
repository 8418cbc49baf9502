"""instruction -> chat template, or plain text -> tokens -> greedy continuation -> answer: any causal language model of `transformers`"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from safetensors import SafetensorError
from torch import Tensor

from aiprod_components.errors import CheckpointError


@dataclass(frozen=True)
class Answer:
    """What a language model wrote, and whether it came to an end of its own."""

    text: str
    ended: bool


class LanguageModel:
    """A network with its tokenizer. `chats` says whether it has a chat template; else it only continues texts, and answers one line."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        from transformers import GenerationConfig  # slow to import, and only who enhances prompts needs it

        self._network, self._tokenizer = network, tokenizer
        self.chats = tokenizer.chat_template is not None
        self._ends = _ids(tokenizer.eos_token_id, network.generation_config.eos_token_id)
        # Nothing of the folder's own sampling: the same request must give the same prompt.
        network.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self._ends or None, pad_token_id=next(iter(self._ends), 0), use_cache=True
        )

    def to(self, device: torch.device) -> "LanguageModel":
        self._network.to(device)
        return self

    def encode(self, text: str) -> Int[Tensor, "1 S"]:
        """An instruction as tokens: by the chat template, as a message, or as the text that it is."""
        if not self.chats:
            return self._tokenizer(text, return_tensors="pt")["input_ids"]
        message = {"role": "user", "content": text}  # one message: not every template has a system's part
        # Templates that know no `enable_thinking` pass over it.
        return self._tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, return_tensors="pt", return_dict=True, enable_thinking=False
        )["input_ids"]

    def room_after(self, tokens: Int[Tensor, "1 S"]) -> int | None:
        """How many tokens the network can add; None where it names no limit."""
        context = getattr(self._network.config.get_text_config(), "max_position_embeddings", None)
        return None if context is None else max(context - tokens.shape[1], 0)

    @torch.inference_mode()
    def answer(self, tokens: Int[Tensor, "1 S"], *, max_tokens: int, watch: Callable[[int], None]) -> Answer:
        """The most likely continuation, token by token; `watch` hears how many there are, and may raise to stop it."""
        from transformers import StoppingCriteriaList

        start, ended = tokens.shape[1], False

        def has_ended(ids: Int[Tensor, "1 L"], scores: object, **_: object) -> Bool[Tensor, "1"]:
            nonlocal ended
            watch(ids.shape[1] - start)
            ended = int(ids[0, -1]) in self._ends or (not self.chats and "\n" in self._decode(ids[0, start:]).lstrip())
            return torch.tensor([ended], device=ids.device)

        tokens = tokens.to(self._network.device)
        ids = self._network.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_tokens,
            stopping_criteria=StoppingCriteriaList([has_ended]),  # type: ignore[list-item]
        )
        text = self._decode(ids[0, start:]).strip()
        return Answer(text if self.chats else text.partition("\n")[0], ended)

    def _decode(self, ids: Int[Tensor, "L"]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def load_language_model(folder: Path) -> LanguageModel:
    """A causal language model and its tokenizer, from files alone. Raises CheckpointError naming the folder and the way out."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not folder.is_dir():
        raise _no_model(folder, "there is no such folder")
    try:
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **local, use_safetensors=True, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, SafetensorError) as error:
        raise _no_model(folder, str(error).partition("\n")[0]) from error
    network, report = loaded
    if report["missing_keys"]:  # else they would be random numbers
        raise _no_model(folder, f"its weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
    model = LanguageModel(network.eval().requires_grad_(False), tokenizer)
    model.encode("")  # a chat template that cannot be filled in shows now
    return model


def _no_model(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"prompt_enhancer {folder} is no causal language model with its tokenizer ({why}); "
        "name a folder written by `save_pretrained`, or leave prompt_enhancer out"
    )


def _ids(*ends: int | Iterable[int] | None) -> list[int]:
    """Token ids, each once, of settings that name one, many or none."""
    lists = [[] if end is None else [end] if isinstance(end, int) else end for end in ends]
    return list(dict.fromkeys(chain.from_iterable(lists)))
