"""component name -> its recipe and objective"""

from typing import Any

from aiprod_components.training.objectives.distillation import DistillationObjective, DistillationRecipe
from aiprod_components.training.objectives.flow import FlowObjective, FlowRecipe
from aiprod_components.training.objectives.preview import PreviewObjective, PreviewRecipe
from aiprod_components.training.objectives.text import TextObjective, TextRecipe
from aiprod_components.training.objectives.upsampler import ResamplerRecipe, UpsamplerObjective, UpsamplerRecipe
from aiprod_components.training.objectives.vae import VAEObjective, VAERecipe

COMPONENTS: dict[str, tuple[Any, Any]] = {
    "text_encoder": (TextRecipe, TextObjective),
    "vae": (VAERecipe, VAEObjective),
    "denoiser": (FlowRecipe, FlowObjective),
    "upsampler": (UpsamplerRecipe, UpsamplerObjective),
    "refiner": (FlowRecipe, FlowObjective),
    "canny": (FlowRecipe, FlowObjective),
    "distilled": (DistillationRecipe, DistillationObjective),
    "temporal_upsampler": (ResamplerRecipe, UpsamplerObjective),
    "upsampler_3_2": (ResamplerRecipe, UpsamplerObjective),
    "upsampler_3_4": (ResamplerRecipe, UpsamplerObjective),
    "upsampler_4_1": (ResamplerRecipe, UpsamplerObjective),
    "preview": (PreviewRecipe, PreviewObjective),
}
