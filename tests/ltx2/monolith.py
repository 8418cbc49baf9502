"""request -> diffusers' own pipelines in one process -> latents, frames and sound: what AIPROD's stages must give, bit for bit"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2ConditionPipeline, LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2InContextPipeline, LTX2ReferenceCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_image2video import LTX2ImageToVideoPipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from aiprod_components.calls import Guidance, Sampling
from aiprod_components.families.ltx2 import LTX2Family

# What a call of the few predefined steps must say, or it asks the network three times a step.
UNGUIDED = {
    **dict.fromkeys(("guidance_scale", "audio_guidance_scale", "modality_scale", "audio_modality_scale"), 1.0),
    **dict.fromkeys(("stg_scale", "audio_stg_scale", "guidance_rescale", "audio_guidance_rescale"), 0.0),
}


@dataclass(frozen=True)
class Made:
    """Latents as the VAEs have them."""

    video: Tensor
    audio: Tensor


class Monolith:
    """A folder in one pipeline, in the family's precision."""

    def __init__(self, family: LTX2Family) -> None:
        self._family = family
        transformer = LTX2VideoTransformer3DModel.from_pretrained(family.folder / family.transformer, dtype=family.dtype)
        self.pipe: Any = LTX2Pipeline.from_pretrained(family.folder, transformer=transformer, dtype=family.dtype)
        self.pipe.set_progress_bar_config(disable=True)
        # Explicit noise levels are what they are; the folder's own scheduler would shift them again.
        shifted = self.pipe.scheduler.config
        self.pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(shifted, use_dynamic_shifting=False, shift_terminal=None)

    def of(self, kind: type) -> Any:
        parts = {name: part for name, part in self.pipe.components.items() if name not in ("processor", "prompt_enhancer", "duration_head")}
        pipe = kind(**parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def text_to_video(self, sampling: Sampling, generator: torch.Generator, **request: Any) -> Made:
        return self._run(self.pipe, sampling, generator, request)

    def image_to_video(self, sampling: Sampling, generator: torch.Generator, picture: bytes, **request: Any) -> Made:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        return self._run(self.of(LTX2ImageToVideoPipeline), sampling, generator, {**request, "image": image})

    def conditioned(self, sampling: Sampling, generator: torch.Generator, conditions: list[LTX2VideoCondition], **request: Any) -> Made:
        return self._run(self.of(LTX2ConditionPipeline), sampling, generator, {**request, "conditions": conditions})

    def following(
        self, sampling: Sampling, generator: torch.Generator, references: list[LTX2ReferenceCondition], *, downscale: int, **request: Any
    ) -> Made:
        pipe = self.of(LTX2InContextPipeline)
        asked = {**request, "reference_conditions": references, "reference_downscale_factor": downscale}
        return self._run(pipe, sampling, generator, asked)

    def _run(self, pipe: Any, sampling: Sampling, generator: torch.Generator, request: dict[str, Any]) -> Made:
        arguments = {**_guidance(sampling), "use_cross_timestep": self._family.version.cross_timestep, **request}
        video, audio = pipe(
            sigmas=list(sampling.sigmas[:-1]),
            num_inference_steps=sampling.num_inference_steps,
            generator=generator,
            output_type="latent",
            return_dict=False,
            **arguments,
        )
        return Made(video, audio)

    def doubled(self, video: Tensor) -> Tensor:
        upsampler = LTX2LatentUpsamplerModel.from_pretrained(self._family.folder / "latent_upsampler", dtype=self._family.dtype)
        pipe: Any = LTX2LatentUpsamplePipeline(self.pipe.vae, upsampler)
        return pipe(latents=video, output_type="latent", return_dict=False)[0]

    def become_refiner(self) -> None:
        """Stage 2's transformer in place of stage 1's."""
        folder, lora = self._family.folder / "transformer", self._family.refiner_lora
        self.pipe.transformer = LTX2VideoTransformer3DModel.from_pretrained(folder, dtype=self._family.dtype)
        if lora is not None:
            self._fuse(lora.path)

    def _fuse(self, lora: Path) -> None:
        self.pipe.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="fused")
        self.pipe.fuse_lora(components=["transformer"])
        self.pipe.unload_lora_weights()

    def wear(self, loras: dict[Path, float]) -> None:
        for lora in loras:
            self.pipe.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name=lora.stem)
        self.pipe.set_adapters([lora.stem for lora in loras], list(loras.values()))

    @torch.no_grad()
    def frames(self, video: Tensor) -> bytes:
        decoded = self.pipe.vae.decode(video, None, return_dict=False)[0]
        return (self.pipe.video_processor.postprocess_video(decoded, output_type="np")[0] * 255).round().astype("uint8").tobytes()

    @torch.no_grad()
    def sound(self, audio: Tensor) -> Tensor:
        return self.pipe.vocoder(self.pipe.audio_vae.decode(audio, return_dict=False)[0])


def _guidance(sampling: Sampling) -> dict[str, Any]:
    pictures, sound = sampling.guidance, sampling.audio_guidance
    if pictures == sound == Guidance():
        return UNGUIDED
    return {
        "guidance_scale": pictures.scale,
        "stg_scale": pictures.stg_scale,
        "modality_scale": pictures.modality_scale,
        "guidance_rescale": pictures.rescale,
        "audio_guidance_scale": sound.scale,
        "audio_stg_scale": sound.stg_scale,
        "audio_modality_scale": sound.modality_scale,
        "audio_guidance_rescale": sound.rescale,
        "spatio_temporal_guidance_blocks": list(pictures.stg_blocks) or None,
    }
