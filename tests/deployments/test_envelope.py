"""value -> sealed -> pickled out of band -> opened"""

import pickle
from dataclasses import fields

import pytest
import torch

from aiprod_components.values import Latents, PromptEmbeds, Video, VideoShape
from deployments import envelope
from deployments.envelope import Receipt, Sealed, merge_receipts

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool]


def receipt(step: str) -> Receipt:
    return Receipt(step, "denoiser", "r1", 0.1, 0.2)


def sent(value: Sealed, *, read_only: bool = True) -> tuple[Sealed, bytes]:
    """Through pickle as Ray does it: buffers out of band, and read-only on arrival."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(stream, buffers=[bytes(b.raw()) if read_only else bytearray(b.raw()) for b in buffers]), stream


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3), ()], ids=str)
def test_a_tensor_arrives_bit_for_bit(dtype, shape):
    tensor = (torch.randn(shape) * 100).to(dtype)
    opened = sent(Sealed.of(Latents(tensor), receipts=()))[0].open().video
    assert opened.dtype == dtype and opened.shape == tensor.shape and torch.equal(opened, tensor)


def test_a_tensor_keeps_its_layout_in_memory():
    channels_last = torch.randn(1, 4, 2, 3, 5).contiguous(memory_format=torch.channels_last_3d)
    for tensor in (channels_last, torch.randn(3, 4).t(), torch.randn(6, 4)[::2], torch.randn(4, 1).expand(4, 3)):
        opened = sent(Sealed.of(Latents(tensor), receipts=()))[0].open().video
        assert torch.equal(opened, tensor)
    assert sent(Sealed.of(Latents(channels_last), receipts=()))[0].open().video.stride() == channels_last.stride()


def test_every_field_of_every_value_arrives():
    embeds = PromptEmbeds(torch.randn(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), None, None)
    video = Video(b"mp4", VideoShape(5, 64, 64, 16.0), "digest")
    assert sent(Sealed.of(video, receipts=()))[0].open() == video
    opened = sent(Sealed.of(embeds, receipts=()))[0].open()
    assert opened.negative_embeds is None and torch.equal(opened.embeds, embeds.embeds)
    assert [f.name for f in fields(opened)] == [f.name for f in fields(embeds)]


def test_the_bytes_of_a_tensor_are_not_in_the_pickle_stream():
    _, stream = sent(Sealed.of(Latents(torch.zeros(1_000_000)), receipts=()))
    assert len(stream) < 2_000


def test_writing_to_an_opened_value_changes_nobody_else_s():
    arrived, _ = sent(Sealed.of(Latents(torch.zeros(4)), receipts=()), read_only=False)
    arrived.open().video.add_(1)
    assert torch.equal(arrived.open().video, torch.zeros(4))


def test_an_envelope_survives_two_journeys_and_a_pickle_without_buffers():
    first, _ = sent(Sealed.of(Latents(torch.arange(4.0)), receipts=(receipt("draft"),)))
    again = pickle.loads(pickle.dumps(sent(first)[0]))
    assert torch.equal(again.open().video, torch.arange(4.0)) and again.receipts == (receipt("draft"),)
    assert again.sealed_at == first.sealed_at


def test_receipts_of_shared_ancestors_are_counted_once_and_in_order():
    left, right = (receipt("prompt"), receipt("draft")), (receipt("prompt"), receipt("picture"))
    merged = merge_receipts(Sealed.of(Latents(torch.zeros(1)), receipts=steps) for steps in (left, right))
    assert [r.step for r in merged] == ["prompt", "draft", "picture"]


def test_an_envelope_of_another_version_is_refused(monkeypatch):
    stream = pickle.dumps(Sealed.of(Latents(torch.zeros(1)), receipts=()))
    monkeypatch.setattr(envelope, "SCHEMA", 2)
    with pytest.raises(ValueError, match="schema 1 and this one reads 2"):
        pickle.loads(stream)
