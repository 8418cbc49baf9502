"""a small VideoVAE with something to say in every layer"""

import pytest
import torch

from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig

CONFIG = VideoVAEConfig(widths=(8, 16, 16, 16), latent_channels=8, attention_heads=2, attention_window=3)


@pytest.fixture(scope="session")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    vae = VideoVAE(CONFIG).eval()
    # Untrained residual branches are silent and would hide a mistake in them.
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.requires_grad_(False)
