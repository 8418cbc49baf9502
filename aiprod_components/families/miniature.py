"""`miniature`: the AIPROD v2 architecture at toy size, trained on a procedural world, shipped with its weights"""

from pathlib import Path

from aiprod_components.calls import Guidance
from aiprod_components.diffusion.schedulers import TokenShift, shifted_flow
from aiprod_components.families.base import Chaining, Component, Family, Limits, SamplingDefaults
from aiprod_components.models.backbone import BackboneConfig, HybridBackbone
from aiprod_components.models.preview import LatentPreview, PreviewConfig
from aiprod_components.models.text_encoder import TextEncoder, TextEncoderConfig
from aiprod_components.models.upsampler import LatentUpsampler, UpsamplerConfig
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.values import LatentGrid, VideoShape

OTHER_UPSAMPLERS = ("temporal_upsampler", "upsampler_3_2", "upsampler_3_4", "upsampler_4_1")
SHIPPED_WEIGHTS = Path(__file__).parents[1] / "miniature" / "weights"


def make_miniature(*, weights: str | None) -> Family:
    return Family(
        name="miniature",
        title="AIPROD v2 miniature: a procedural world, 128x128, two seconds",
        licence="© Averroes, all rights reserved",
        grid=LatentGrid(time=4, space=16, channels=64),
        limits=Limits(max_frames=241, min_side=32, max_side=256, max_pixels=256 * 256, max_steps=100, max_prompt_bytes=500),
        sampling=SamplingDefaults(
            num_inference_steps=30,
            guidance=Guidance(scale=3.0),
            shift=TokenShift(few_tokens=144, few_shift=0.5, many_tokens=576, many_shift=1.0),
            refinement_sigmas=(0.4, 0.25, 0.1, 0.0),
            distilled_sigmas=shifted_flow(8, shift=0.5),
        ),
        chaining=Chaining(window=33, overlap=3),
        attention_blocks=5,
        video=VideoShape(num_frames=33, height=128, width=128, frame_rate=16.0),
        components={
            "text_encoder": Component(TextEncoder, TextEncoderConfig, None),
            "vae": Component(VideoVAE, VideoVAEConfig, None),
            "denoiser": Component(HybridBackbone, BackboneConfig, None),
            "upsampler": Component(LatentUpsampler, UpsamplerConfig, None),
            **{name: Component(LatentUpsampler, UpsamplerConfig, None) for name in OTHER_UPSAMPLERS},
            "refiner": Component(HybridBackbone, BackboneConfig, None),
            "preview": Component(LatentPreview, PreviewConfig, None),
        },
        weights=SHIPPED_WEIGHTS if weights is None else Path(weights),
    )
