"""a small VideoVAE with something to say in every layer"""

import pytest
import torch

from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from tests.models.untrained import outspoken

CONFIG = VideoVAEConfig(widths=(8, 16, 16, 16), latent_channels=8, attention_heads=2, attention_window=3)


@pytest.fixture(scope="session")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    return outspoken(VideoVAE(CONFIG), std=0.1)
