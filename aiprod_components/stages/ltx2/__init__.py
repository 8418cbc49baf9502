"""call -> value, for family `ltx2`: the same calls as AIPROD v2's stages answer, computed by diffusers' networks"""

from collections.abc import Callable
from typing import Any

from aiprod_components.stages.ltx2.audio_decoder import LTX2AudioDecoder
from aiprod_components.stages.ltx2.audio_encoder import LTX2AudioEncoder
from aiprod_components.stages.ltx2.flow import LTX2Denoiser, LTX2Refiner
from aiprod_components.stages.ltx2.text_encoder import LTX2TextEncoding
from aiprod_components.stages.ltx2.upsampler import LTX2Upsampler
from aiprod_components.stages.ltx2.vae_decoder import LTX2VAEDecoder
from aiprod_components.stages.ltx2.vae_encoder import LTX2VAEEncoder

LTX2_STAGES: dict[str, Callable[..., Any]] = {
    "text_encoder": LTX2TextEncoding,
    "vae_encoder": LTX2VAEEncoder,
    "audio_encoder": LTX2AudioEncoder,
    "denoiser": LTX2Denoiser,
    "upsampler": LTX2Upsampler,
    "refiner": LTX2Refiner,
    "audio_decoder": LTX2AudioDecoder,
    "vae_decoder": LTX2VAEDecoder,
}
