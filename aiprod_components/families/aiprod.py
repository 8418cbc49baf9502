"""`aiprod`: AIPROD v2 as specified; its weights are what the user trains"""

from dataclasses import replace
from pathlib import Path

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.schedulers import TokenShift
from aiprod_components.errors import CheckpointError
from aiprod_components.families.base import Chaining, Component, Family, Limits, SamplingDefaults
from aiprod_components.models.backbone import BackboneConfig, HybridBackbone
from aiprod_components.models.preview import LatentPreview, PreviewConfig
from aiprod_components.models.text_encoder import TextEncoder, TextEncoderConfig
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.values import LatentGrid, VideoShape

RANDOM = "random"  # asked for by name: a graph to measure, not to look at

BACKBONE = BackboneConfig(latent_channels=256, width=768, heads=12, attention_blocks=30, convolution_blocks=18)
VAE = VideoVAEConfig(widths=(64, 128, 256, 512), latent_channels=256, attention_heads=8, attention_window=8, residual_blocks=(2, 2, 2, 2))
UPSAMPLER = UpsamplerConfig(latent_channels=256, width=512, blocks=4)
OTHER_UPSAMPLERS = {
    "temporal_upsampler": replace(UPSAMPLER, numerator=1, temporal=True),
    "upsampler_3_2": replace(UPSAMPLER, numerator=3, denominator=2),
    "upsampler_3_4": replace(UPSAMPLER, numerator=3, denominator=4),
    "upsampler_4_1": replace(UPSAMPLER, numerator=4),
}
# google/mt5-base; random weights read bytes, since a vocabulary file comes only with a folder
TEXT_ENCODER = TextEncoderConfig(
    tokenizer="bytes", vocabulary=250_112, hidden=768, layers=12, heads=12, head_width=64, feed_forward=2048, max_tokens=512
)


def make_aiprod(*, weights: str | None) -> Family:
    """Raises CheckpointError when no weights are named: random ones are never served by accident."""
    if weights is None:
        raise CheckpointError(f"family aiprod ships no weights: name a folder of trained ones, or {RANDOM!r} for random ones")
    return Family(
        name="aiprod",
        title="AIPROD v2: 30 attention + 18 convolution blocks, width 768",
        licence="© Averroes, all rights reserved",
        grid=LatentGrid(time=4, space=16, channels=256),
        limits=Limits(max_frames=481, min_side=64, max_side=1920, max_pixels=1920 * 1088, max_steps=100, max_prompt_bytes=4000),
        sampling=SamplingDefaults(
            num_inference_steps=40,
            guidance=Guidance(scale=4.0),
            shift=TokenShift(few_tokens=1024, few_shift=0.95, many_tokens=4096, many_shift=2.05),
            refinement_sigmas=(0.909375, 0.725, 0.421875, 0.0),
            distilled_sigmas=(1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0),
        ),
        chaining=Chaining(window=97, overlap=3),
        attention_blocks=BACKBONE.attention_blocks,
        video=VideoShape(num_frames=97, height=512, width=768, frame_rate=24.0),
        components={
            "text_encoder": Component(TextEncoder, TextEncoderConfig, TEXT_ENCODER),
            "vae": Component(VideoVAE, VideoVAEConfig, VAE),
            "denoiser": Component(HybridBackbone, BackboneConfig, BACKBONE),
            "upsampler": Component(LatentUpsampler, UpsamplerConfig, UPSAMPLER),
            **{name: Component(LatentUpsampler, UpsamplerConfig, config) for name, config in OTHER_UPSAMPLERS.items()},
            "refiner": Component(HybridBackbone, BackboneConfig, BACKBONE),
            "preview": Component(LatentPreview, PreviewConfig, None),
        },
        weights=None if weights == RANDOM else Path(weights),
    )
