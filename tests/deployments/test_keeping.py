"""sealed results -> bytes -> the same results"""

import json
from typing import cast

import pytest
import torch
from safetensors.torch import load

from aiprod_components.errors import MissingArtifactError
from aiprod_components.values import Latents, PromptEmbeds
from deployments.envelope import Receipt, Sealed
from deployments.keeping import from_bytes, to_bytes
from deployments.memory import ResultMemory

RECEIPT = Receipt("draft", "denoiser", "a", 0.0, 1.0)


def latents(*, frames: int = 3) -> Latents:
    return Latents(torch.randn(1, frames, 4, 5, 6).permute(0, 2, 1, 4, 3))  # not in the order of its dimensions


def test_latents_come_back_to_the_last_bit_and_in_their_memory_order() -> None:
    value = latents()
    back = from_bytes(to_bytes(Sealed.of(value, receipts=(RECEIPT,)))).open()
    assert torch.equal(back.video, value.video) and back.video.stride() == value.video.stride() and back.audio is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_kind_of_number_comes_back(dtype: torch.dtype) -> None:
    back = from_bytes(to_bytes(Sealed.of(Latents(torch.randn(1, 2, 1, 2, 2).to(dtype)), receipts=()))).open()
    assert back.video.dtype == dtype


def test_prompt_embeds_come_back_with_and_without_a_negative_prompt() -> None:
    embeds, mask = torch.randn(1, 3, 8), torch.tensor([[True, True, False]])
    for value in (PromptEmbeds(embeds, mask), PromptEmbeds(embeds, mask, embeds + 1, ~mask)):
        back = from_bytes(to_bytes(Sealed.of(value, receipts=()))).open()
        assert torch.equal(back.embeds, embeds) and torch.equal(back.mask, mask) and back.mask.dtype == torch.bool
        assert (back.negative_embeds is None) == (value.negative_embeds is None)


def test_a_text_comes_back() -> None:
    assert (
        from_bytes(to_bytes(Sealed.of("Style: anime, a red ball is bouncing", receipts=()))).open()
        == "Style: anime, a red ball is bouncing"
    )


def test_a_torn_file_is_missing_not_wrong() -> None:
    whole = bytes(to_bytes(Sealed.of(latents(), receipts=())))
    for torn in (b"", whole[:7], whole[:40], whole[:-1], b"\xff" * 100, whole.replace(b"Latents", b"Nothing")):
        with pytest.raises(MissingArtifactError):
            from_bytes(torn)


def test_what_is_kept_is_a_file_that_safetensors_reads() -> None:
    value = Latents(torch.randn(1, 2, 1, 3, 3), noise_state=torch.arange(5, dtype=torch.uint8))
    read = load(bytes(to_bytes(Sealed.of(value, receipts=()))))
    assert torch.equal(read["video"], value.video) and torch.equal(read["noise_state"], cast(torch.Tensor, value.noise_state))


def test_writing_to_what_was_kept_changes_nobody_else_s() -> None:
    kept = from_bytes(to_bytes(Sealed.of(latents(), receipts=())))
    before = kept.open().video.clone()
    kept.open().video.add_(1)
    assert torch.equal(kept.open().video, before)


def test_what_is_kept_names_no_code() -> None:
    data = bytes(to_bytes(Sealed.of(latents(), receipts=())))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["aiprod"])["kind"] == "Latents"


def test_the_memory_forgets_what_was_used_longest_ago() -> None:
    memory = ResultMemory(max_bytes=100_000)
    sealed = {name: Sealed.of(Latents(torch.zeros(1, 1, 1, 100, 100)), receipts=()) for name in "abc"}  # 40,000 bytes each
    memory.put("a", sealed["a"])
    memory.put("b", sealed["b"])
    assert memory.get("a") is sealed["a"]
    memory.put("c", sealed["c"])
    assert memory.get("b") is None and memory.get("a") is sealed["a"] and memory.get("c") is sealed["c"]


@pytest.mark.parametrize(("text", "most"), [("x" * 20_000, 5), ("é" * 20_000, 2), ("", 100)], ids=["letters", "two bytes each", "nothing"])
def test_the_memory_forgets_texts_too(text: str, most: int) -> None:
    memory = ResultMemory(max_bytes=100_000)
    for number in range(200):
        memory.put(str(number), Sealed.of(text, receipts=()))
    kept = [number for number in range(200) if memory.get(str(number)) is not None]
    assert 0 < len(kept) <= most and kept[-1] == 199
