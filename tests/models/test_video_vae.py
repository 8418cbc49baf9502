"""The VideoVAE keeps sizes, looks only back, and streams exactly."""

import pytest
import torch

from aiprod_components.models.video_vae import History, Posterior, VideoVAE
from tests.models.conftest import CONFIG


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (5, 32, 48), (17, 48, 16)])
def test_decoding_gives_back_exactly_the_size_that_was_encoded(vae: VideoVAE, frames: int, height: int, width: int):
    clip = torch.rand(2, 3, frames, height, width)
    latents = vae.encode(clip)
    assert latents.shape == (2, 8, (frames - 1) // 4 + 1, height // 16, width // 16)
    assert vae.decode(latents).shape == clip.shape


def test_a_later_frame_changes_no_earlier_latent_and_no_earlier_frame(vae: VideoVAE):
    clip = torch.rand(1, 3, 13, 32, 32)
    changed = clip.clone()
    changed[:, :, 5:] = torch.rand(1, 3, 8, 32, 32)
    latents, other = vae.encode(clip), vae.encode(changed)
    torch.testing.assert_close(latents[:, :, :2], other[:, :, :2])
    assert not torch.allclose(latents[:, :, 2:], other[:, :, 2:])
    torch.testing.assert_close(vae.decode(latents)[:, :, :5], vae.decode(other)[:, :, :5])


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1, 1), (1, 5), (2, 3, 1), (4, 2)])
def test_decoding_a_stream_gives_exactly_the_frames_of_decoding_the_whole(vae: VideoVAE, chunks: tuple[int, ...]):
    latents = torch.randn(1, 8, 6, 2, 2)
    history = History()
    streamed = torch.cat([vae.decode(chunk, history) for chunk in latents.split(chunks, dim=2)], dim=2)
    torch.testing.assert_close(streamed, vae.decode(latents), rtol=0, atol=1e-6)


def test_encoding_a_stream_gives_exactly_the_latents_of_encoding_the_whole(vae: VideoVAE):
    clip = torch.rand(1, 3, 17, 32, 32)
    history = History()
    streamed = torch.cat([vae.encode(chunk, history) for chunk in clip.split((1, 4, 8, 4), dim=2)], dim=2)
    torch.testing.assert_close(streamed, vae.encode(clip), rtol=0, atol=1e-6)


def test_the_temporal_attention_sees_no_farther_back_than_its_window(vae: VideoVAE):
    latents = torch.randn(1, 8, 8, 2, 2)
    changed = latents.clone()
    changed[:, :, 0] = torch.randn(1, 8, 2, 2)
    before, after = (vae.decoder.attention(x, History()) for x in (latents, changed))
    torch.testing.assert_close(before[:, :, CONFIG.attention_window :], after[:, :, CONFIG.attention_window :])
    assert not torch.allclose(before[:, :, CONFIG.attention_window - 1], after[:, :, CONFIG.attention_window - 1])


def test_normalized_latents_have_the_stored_statistics_taken_out(vae: VideoVAE):
    clip = torch.rand(1, 3, 5, 32, 32)
    raw = vae.posterior(clip).mu
    with_statistics = VideoVAE(CONFIG).eval()
    with_statistics.load_state_dict(vae.state_dict())
    with_statistics.mean.fill_(0.5)
    with_statistics.std.fill_(2.0)
    torch.testing.assert_close(with_statistics.encode(clip), (raw - 0.5) / 2)
    torch.testing.assert_close(with_statistics.decode((raw - 0.5) / 2), vae.decode(raw))


def test_the_divergence_is_that_of_the_closed_form():
    posterior = Posterior(torch.full((1, 1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1, 1), -1.2))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.3, torch.exp(torch.tensor(-0.6))), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(posterior.kl(), expected)
