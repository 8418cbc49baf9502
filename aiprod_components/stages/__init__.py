"""call -> value: one file per stage; each holds weights and answers calls, and knows nothing of who asks"""

from collections.abc import Callable
from typing import Any

from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.refiner import Refiner
from aiprod_components.stages.text_encoder import TextEncoding
from aiprod_components.stages.upsampler import Upsampler
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.stages.vae_encoder import VAEEncoder

# In the order of the work. A stage's name is what calls, deployments and `serve_config.yaml` know it by.
STAGES: dict[str, Callable[..., Any]] = {
    "text_encoder": TextEncoding,
    "vae_encoder": VAEEncoder,
    "denoiser": Denoiser,
    "upsampler": Upsampler,
    "refiner": Refiner,
    "vae_decoder": VAEDecoder,
}
