"""The decoder hands frames to the encoder a few at a time, says how far it is, and shows what a whole decode shows."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aiprod_components.calls import DecodeVideo
from aiprod_components.errors import CancelledError
from aiprod_components.families import make_family
from aiprod_components.local import Silent
from aiprod_components.media.decode import decode_video
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.frames import digest_of, to_bytes
from aiprod_components.models import tiling
from aiprod_components.stages import vae_decoder
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.values import Frames, Latents, VideoShape
from tests.stages.watching import Counter


@pytest.fixture(scope="module")
def stage() -> VAEDecoder:
    return VAEDecoder(make_family("miniature"), device=torch.device("cpu"))


def some_latents(frames: int, *, seed: int = 0) -> Latents:
    return Latents(torch.randn(1, 64, frames, 2, 3, generator=torch.Generator().manual_seed(seed)))


def some_call(*clips: Latents, frames: int, overlap: int = 0, container: str = "mp4") -> DecodeVideo:
    return DecodeVideo(clips, VideoShape(frames, 32, 48, 16.0), overlap, container)


def whole_frames(stage: VAEDecoder, latents: Latents) -> Tensor:
    with torch.inference_mode():
        return to_bytes(stage._vae.decode(latents.video))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two latent frames of 2 x 3 at once."""
    monkeypatch.setattr(tiling, "POSITIONS_AT_ONCE", 12)


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The raw frames of each chunk, as they leave for the encoder."""
    chunks: list[Tensor] = []

    def kept(unit: Tensor) -> Tensor:
        chunks.append(to_bytes(unit))
        return chunks[-1]

    monkeypatch.setattr(vae_decoder, "to_bytes", kept)
    return chunks


def assert_alike(frames: Tensor, expected: Tensor) -> None:
    """But for what is on the edge of rounding to one byte or the next: chunks differ from the whole in the last bits."""
    difference = (frames.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_a_small_video_is_to_the_last_byte_what_a_whole_decode_makes(stage: VAEDecoder):
    latents, counter = some_latents(3), Counter()
    video = stage.run(some_call(latents, frames=9), counter)
    assert counter.seen == [(1, 1)]
    frames = Frames(whole_frames(stage, latents), 16.0)
    assert (video.frames_digest, video.media_type) == (digest_of(frames), "video/mp4")
    # Not the file's bytes: once in some hundred times x264 encodes the same frames otherwise, with a single thread too.
    shown, expected = (decode_video(data).float() for data in (video.data, encode_mp4(frames)))
    assert shown.shape == expected.shape and (shown - expected).abs().mean() < 2


@pytest.mark.usefixtures("small_pieces")
def test_a_long_video_comes_in_chunks_and_says_how_far_it_is(stage: VAEDecoder, raw: list[Tensor]):
    latents, counter = some_latents(5), Counter()
    video = stage.run(some_call(latents, frames=17), counter)
    assert counter.seen == [(1, 3), (2, 3), (3, 3)]
    assert [chunk.shape[1] for chunk in raw] == [5, 8, 4]
    assert_alike(torch.cat(raw, dim=1), whole_frames(stage, latents))
    assert decode_video(video.data).shape == (17, 32, 48, 3)


@pytest.mark.usefixtures("small_pieces")
def test_the_digest_of_chunks_is_that_of_all_their_frames(stage: VAEDecoder, raw: list[Tensor]):
    video = stage.run(some_call(some_latents(5), frames=17), Silent())
    assert len(raw) == 3
    assert video.frames_digest == digest_of(Frames(torch.cat(raw, dim=1), 16.0))


@pytest.mark.usefixtures("small_pieces")
def test_a_cancelled_video_stops_at_the_next_chunk(stage: VAEDecoder):
    counter = Counter(stop_at=1)
    with pytest.raises(CancelledError):
        stage.run(some_call(some_latents(5), frames=17), counter)
    assert counter.seen == [(1, 3)]


@pytest.mark.parametrize("overlap", [0, 1, 5, 7])
@pytest.mark.usefixtures("small_pieces")
def test_frames_that_two_clips_share_are_shown_once(stage: VAEDecoder, raw: list[Tensor], overlap: int):
    clips, counter = (some_latents(3, seed=1), some_latents(4, seed=2)), Counter()
    video = stage.run(some_call(*clips, frames=22 - overlap, overlap=overlap), counter)
    first, second = (whole_frames(stage, clip) for clip in clips)
    assert_alike(torch.cat(raw, dim=1), torch.cat([first, second[:, overlap:]], dim=1))
    assert decode_video(video.data).shape == (22 - overlap, 32, 48, 3)
    assert counter.seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(("container", "media_type"), [("png", "image/png"), ("webp", "image/webp"), ("mp4", "video/mp4")])
def test_one_frame_is_a_still_where_one_is_asked_for(stage: VAEDecoder, container: str, media_type: str):
    latents, counter = some_latents(1), Counter()
    video = stage.run(some_call(latents, frames=1, container=container), counter)
    frame = whole_frames(stage, latents)
    shown = decode_video(video.data)[0] if container == "mp4" else torch.from_numpy(np.array(Image.open(io.BytesIO(video.data))))
    assert shown.shape == (32, 48, 3)
    assert container == "mp4" or torch.equal(shown, frame[0, 0])
    assert (video.media_type, video.frames_digest) == (media_type, digest_of(Frames(frame, 16.0)))
    assert counter.seen == [(1, 1)]
