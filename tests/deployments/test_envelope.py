"""value -> sealed -> pickled out of band -> opened"""

import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from aiprod_components.values import PromptEmbeds, Video, VideoShape
from deployments import envelope
from deployments.envelope import Receipt, Sealed, merge_receipts

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool]


@dataclass(frozen=True)
class Parcel:
    """A value of any shape and type."""

    tensor: Tensor
    note: str = ""


def receipt(step: str) -> Receipt:
    return Receipt(step, "denoiser", "r1", 0.1, 0.2)


def sealed(tensor: Tensor) -> Sealed:
    return Sealed.of(Parcel(tensor), receipts=())


def sent(value: Sealed) -> tuple[Sealed, bytes]:
    """Through pickle as Ray does it: buffers go out of band; and the pickle stream."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(stream, buffers=[bytearray(buffer.raw()) for buffer in buffers]), stream


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3), ()], ids=str)
def test_a_tensor_arrives_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 100).to(dtype)
    opened = sent(sealed(tensor))[0].open().tensor
    assert opened.dtype == dtype and opened.shape == tensor.shape and torch.equal(opened, tensor)


def test_a_tensor_keeps_its_layout_in_memory() -> None:
    channels_last = torch.randn(1, 4, 2, 3, 5).contiguous(memory_format=torch.channels_last_3d)
    for tensor in (channels_last, torch.randn(3, 4).t(), torch.randn(6, 4)[::2], torch.randn(4, 1).expand(4, 3)):
        assert torch.equal(sent(sealed(tensor))[0].open().tensor, tensor)
    assert sent(sealed(channels_last))[0].open().tensor.stride() == channels_last.stride()


def test_every_field_of_every_value_arrives() -> None:
    embeds = PromptEmbeds(torch.randn(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    video = Video(b"mp4", VideoShape(5, 64, 64, 16.0), "digest")
    assert sent(Sealed.of(video, receipts=()))[0].open() == video
    opened = sent(Sealed.of(embeds, receipts=()))[0].open()
    assert torch.equal(opened.embeds, embeds.embeds) and torch.equal(opened.mask, embeds.mask)
    assert opened.negative_embeds is None and opened.negative_mask is None


def test_the_bytes_of_a_tensor_are_not_in_the_pickle_stream() -> None:
    assert len(sent(sealed(torch.zeros(1_000_000)))[1]) < 2_000


def test_writing_to_an_opened_value_changes_nobody_else_s() -> None:
    arrived, _ = sent(sealed(torch.zeros(4)))
    arrived.open().tensor.add_(1)
    assert torch.equal(arrived.open().tensor, torch.zeros(4))


def test_an_envelope_survives_two_journeys_and_a_pickle_without_buffers() -> None:
    first, _ = sent(Sealed.of(Parcel(torch.arange(4.0), "note"), receipts=(receipt("draft"),)))
    again = pickle.loads(pickle.dumps(sent(first)[0]))
    assert torch.equal(again.open().tensor, torch.arange(4.0)) and again.open().note == "note"
    assert (again.receipts, again.sealed_at) == ((receipt("draft"),), first.sealed_at)


def test_receipts_of_shared_ancestors_are_counted_once_and_in_order() -> None:
    left, right = (receipt("prompt"), receipt("draft")), (receipt("prompt"), receipt("picture"))
    merged = merge_receipts(Sealed.of(Parcel(torch.zeros(1)), receipts=steps) for steps in (left, right))
    assert [r.step for r in merged] == ["prompt", "draft", "picture"]


def test_an_envelope_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = pickle.dumps(sealed(torch.zeros(1)))
    monkeypatch.setattr(envelope, "SCHEMA", 2)
    with pytest.raises(ValueError, match="schema 1 and this one reads 2"):
        pickle.loads(stream)
