"""version -> configs of the real geometry, tiny -> lively random weights -> a folder as diffusers saves it, and a LoRA for it"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.models.autoencoders.ltx2_diffusion_decoder import LTX2VideoDiffusionDecoderModel
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GemmaTokenizer,
)
from transformers.audio_utils import mel_filter_bank

VERSIONS = ("2.0", "2.3", "2.5")
STG_BLOCKS = {"2.0": [1], "2.3": [1], "2.5": [1]}
"""Where self-attention is skipped: the last of two blocks, as 29 (2.0) and 28 are near the last of 48. Without effect in 2.0."""

Config = dict[str, Any]

# What is tiny: widths, heads and layers, and nothing else.
WIDTH, AUDIO_WIDTH, TEXT_WIDTH, TEXT_LAYERS = 64, 32, 48, 2
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
VOCABULARY = 320  # the special tokens, 256 bytes, and room for the tokens of images and sound
TOKENS = 1024

SCHEDULER: Config = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
# 2.5 comes as it is distilled, its other transformer beside it: whoever takes that one turns the shift on.
SCHEDULER_25: Config = SCHEDULER | {"use_dynamic_shifting": False, "shift_terminal": None}
SCHEDULERS = {"2.0": SCHEDULER, "2.3": SCHEDULER, "2.5": SCHEDULER_25}

TRANSFORMER: Config = {
    "num_attention_heads": 4,
    "attention_head_dim": WIDTH // 4,
    "cross_attention_dim": WIDTH,
    "audio_num_attention_heads": 4,
    "audio_attention_head_dim": AUDIO_WIDTH // 4,
    "audio_cross_attention_dim": AUDIO_WIDTH,
    "num_layers": 2,
    "caption_channels": TEXT_WIDTH,
    "rope_type": "split",
}
TRANSFORMER_23: Config = TRANSFORMER | {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
}
TRANSFORMER_25: Config = TRANSFORMER_23 | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}

CONNECTORS: Config = {
    "caption_channels": TEXT_WIDTH,
    "text_proj_in_factor": TEXT_LAYERS + 1,
    "video_connector_num_attention_heads": 3,
    "video_connector_attention_head_dim": TEXT_WIDTH // 3,
    "audio_connector_num_attention_heads": 3,
    "audio_connector_attention_head_dim": TEXT_WIDTH // 3,
    "rope_type": "split",
}
CONNECTORS_23: Config = CONNECTORS | {
    "video_connector_num_attention_heads": 4,
    "video_connector_attention_head_dim": WIDTH // 4,
    "video_gated_attn": True,
    "audio_connector_num_attention_heads": 4,
    "audio_connector_attention_head_dim": AUDIO_WIDTH // 4,
    "audio_gated_attn": True,
    "per_modality_projections": True,
    "video_hidden_dim": WIDTH,
    "audio_hidden_dim": AUDIO_WIDTH,
    "proj_bias": True,
}

VAE: Config = {
    "block_out_channels": (8, 16, 32, 64),
    "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "decoder_causal": False,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
VAE_23: Config = VAE | {
    "block_out_channels": (8, 16, 32, 32),
    "decoder_block_out_channels": (8, 16, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True, True, True),
    "decoder_inject_noise": (False, False, False, False, False),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False, False, False, False),
    "upsample_factor": (2, 2, 1, 2),
    "decoder_spatial_padding_mode": "zeros",
}

# Its statistics are as many as `base_channels` and normalize 8 channels x 16 mel bins: this width alone has to be the real one.
AUDIO_VAE: Config = {"base_channels": 128, "ch_mult": (1, 1, 1), "num_res_blocks": 0}

VOCODER: Config = {"hidden_channels": 64, "resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]]}
VOCODER_23: Config = VOCODER | {
    "hidden_channels": 128,
    "bwe_hidden_channels": 64,
    "bwe_resnet_kernel_sizes": [3],
    "bwe_resnet_dilations": [[1, 3, 5]],
}

UPSAMPLER: Config = {"mid_channels": 32, "num_blocks_per_stage": 1}
UPSAMPLER_25: Config = UPSAMPLER | {"use_rational_resampler": False}
TEMPORAL_UPSAMPLER: Config = UPSAMPLER | {"spatial_upsample": False, "temporal_upsample": True, "rational_spatial_scale": 1.0}

DURATION_HEAD: Config = {
    "video_cross_attention_dim": WIDTH,
    "audio_cross_attention_dim": AUDIO_WIDTH,
    "pooler_hidden_dim": 16,
    "mlp_hidden_dim": 16,
}

GEMMA: Config = {
    "vocab_size": VOCABULARY,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_hidden_layers": TEXT_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 1024,
}
GEMMA_3: Config = {
    "text_config": GEMMA
    | {
        "query_pre_attn_scalar": 16,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        },
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 1,
    "boi_token_index": 300,
    "eoi_token_index": 301,
    "image_token_index": 302,
}
GEMMA_4: Config = {
    "text_config": GEMMA | {"global_head_dim": 32, "num_global_key_value_heads": 1, "attention_k_eq_v": True},
    "vision_config": {"mm_embed_dim": TEXT_WIDTH, "mm_posemb_size": 8, "output_proj_dims": TEXT_WIDTH},
    "audio_config": {},
    "boi_token_id": 300,
    "eoi_token_id": 301,
    "image_token_id": 302,
    "video_token_id": 303,
    "boa_token_id": 304,
    "eoa_token_index": 305,
    "audio_token_id": 306,
}

# 64 x 64 pixels and 9 frames are 2 x 2 x 2 latents, and no window may be larger than what it moves over; the real ones are (3, 7, 7).
DIFFUSION_DECODER: Config = {
    "decoder_head_dim": 8,
    "decoder_stage_channels": (64, 32, 16, 16, 8),
    "decoder_stage_depths": (1, 1, 1, 1, 1),
    "decoder_stage_kernels": ((2, 2, 2), (2, 3, 3), (3, 3, 3), (3, 3, 3)),
    "decoder_stage5_kernel": (3, 3, 3),
    "decoder_t_emb_dim": 16,
}

Build = Callable[[], Any]

MODELS_20: dict[str, Build] = {
    "text_encoder": lambda: Gemma3ForConditionalGeneration(Gemma3Config(**GEMMA_3)),
    "connectors": lambda: LTX2TextConnectors(**CONNECTORS),
    "transformer": lambda: LTX2VideoTransformer3DModel(**TRANSFORMER),
    "vae": lambda: AutoencoderKLLTX2Video(**VAE),
    "audio_vae": lambda: AutoencoderKLLTX2Audio(**AUDIO_VAE),
    "vocoder": lambda: LTX2Vocoder(**VOCODER),
}
MODELS_23: dict[str, Build] = MODELS_20 | {
    "connectors": lambda: LTX2TextConnectors(**CONNECTORS_23),
    "transformer": lambda: LTX2VideoTransformer3DModel(**TRANSFORMER_23),
    "vae": lambda: AutoencoderKLLTX2Video(**VAE_23),
    "vocoder": lambda: LTX2VocoderWithBWE(**VOCODER_23),
}
MODELS_25: dict[str, Build] = MODELS_23 | {
    "text_encoder": lambda: Gemma4UnifiedForConditionalGeneration(Gemma4UnifiedConfig(**GEMMA_4)),
    "transformer": lambda: LTX2VideoTransformer3DModel(**TRANSFORMER_25),
    "duration_head": lambda: LTX2DurationHead(**DURATION_HEAD),
}
MODELS = {"2.0": MODELS_20, "2.3": MODELS_23, "2.5": MODELS_25}
"""What the pipeline loads, by version."""

BESIDE: dict[str, dict[str, Build]] = {
    "2.0": {"latent_upsampler": lambda: LTX2LatentUpsamplerModel(**UPSAMPLER)},
    "2.3": {"latent_upsampler": lambda: LTX2LatentUpsamplerModel(**UPSAMPLER)},
    "2.5": {
        "transformer_full": lambda: LTX2VideoTransformer3DModel(**TRANSFORMER_25),
        "latent_upsampler": lambda: LTX2LatentUpsamplerModel(**UPSAMPLER_25),
        "temporal_latent_upsampler": lambda: LTX2LatentUpsamplerModel(**TEMPORAL_UPSAMPLER),
        "diffusion_decoder": lambda: LTX2VideoDiffusionDecoderModel(**DIFFUSION_DECODER),
    },
}
"""What lies in the folder without a line in model_index.json."""


def make_folder(path: Path, version: str, *, seed: int = 0) -> Path:
    """Write `path` as a checkpoint of this version in diffusers' layout, in float32; the same seed writes the same bytes."""
    models = {name: lively(build, name=name, seed=seed) for name, build in MODELS[version].items()}
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULERS[version])
    LTX2Pipeline(scheduler=scheduler, tokenizer=byte_tokenizer(), **models).save_pretrained(path)
    for name, build in BESIDE[version].items():
        lively(build, name=name, seed=seed).save_pretrained(path / name)
    return path


def make_lora(path: Path, folder: Path, *, rank: int = 4, seed: int = 1) -> Path:
    """Write a LoRA on every linear layer of the blocks of the folder's transformer, in the names that distilled LoRAs come with."""
    transformer: Any = LTX2VideoTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    generator = seeded(f"{seed}/lora")
    tensors: dict[str, Tensor] = {}
    for name, layer in transformer.transformer_blocks.named_modules():
        if isinstance(layer, nn.Linear):
            key = f"diffusion_model.transformer_blocks.{name}"
            tensors[f"{key}.lora_A.weight"] = sized((rank, layer.in_features), generator)
            tensors[f"{key}.lora_B.weight"] = LORA_STRENGTH * sized((layer.out_features, rank), generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def byte_tokenizer() -> GemmaTokenizer:
    """Gemma's class and special tokens, and one token a byte: every script has tokens here."""
    names = (*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)))
    vocabulary = {name: index for index, name in enumerate(names)}
    return GemmaTokenizer(vocab=vocabulary, add_bos_token=True, padding_side="left", model_max_length=TOKENS)


def lively(build: Build, *, name: str, seed: int) -> Any:
    """The model with every weight drawn anew from seed and name: nothing is zero or shut. Torch's own random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        model = build().eval().requires_grad_(False)
    generator = seeded(f"{seed}/{name}")
    for key, weight in model.named_parameters():
        weight.copy_(drawn(key, weight, generator))
    for key, buffer in model.named_buffers():
        kind = key.rpartition(".")[2]
        if kind in BUFFERS:
            buffer.copy_(BUFFERS[kind](buffer, seeded(f"{seed}/{LATENTS_OF.get(name, name)}/{kind}")))
    return model


def drawn(key: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Tables and registers of unit size; matrices that keep the size of what they multiply; biases near 0, scales near their start."""
    kind = key.rpartition(".")[2]
    gain = math.prod(gain for part, gain in GAINS.items() if part in key)
    if any(word in kind for word in UNIT_SIZE):
        return gain * torch.randn(weight.shape, generator=generator)
    if weight.ndim > 1:
        return gain * sized(tuple(weight.shape), generator)
    start = torch.zeros_like(weight) if kind == "bias" else weight
    return gain * (start + 0.1 * torch.randn(weight.shape, generator=generator))


def sized(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """[out, in, ...] that gives back what is as large as what it is given."""
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def seeded(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))


def windowed_waves(basis: Tensor, _generator: torch.Generator) -> Tensor:
    """[2 x frequencies, 1, samples]: the cosines, then the sines, under a Hann window."""
    samples = basis.shape[-1]
    waves = torch.fft.rfft(torch.eye(samples)).T * torch.hann_window(samples)
    return torch.cat([waves.real, waves.imag])[:, None]


def mel_filters(basis: Tensor, _generator: torch.Generator) -> Tensor:
    """[mel bins, frequencies] of sound at 16 kHz."""
    bins, frequencies = basis.shape
    filters = mel_filter_bank(frequencies, bins, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).float()


BUFFERS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "latents_mean": lambda mean, generator: 0.5 * torch.randn(mean.shape, generator=generator),
    "latents_std": lambda std, generator: 0.5 + torch.rand(std.shape, generator=generator),
    "forward_basis": windowed_waves,
    "inverse_basis": windowed_waves,
    "mel_basis": mel_filters,
}
"""Buffers that a checkpoint brings; their classes start them at 0 or 1."""

LATENTS_OF = {"diffusion_decoder": "vae"}
"""Whose latents a model reads, with the same statistics."""

UNIT_SIZE = ("table", "registers", "query_tokens", "embedding", "modality_emb")
GAINS = {
    # Queries and keys twice as large: attention picks, so that twenty tokens of a prompt are heard among a thousand registers.
    "norm_q": 2.0,
    "norm_k": 2.0,
    # A voice within [-1, 1] for the vocoders that end in a clamp.
    "convs": 0.3,
    "vocoder.conv_out": 0.4,
    "bwe_generator.conv_out": 0.2,
}
LORA_STRENGTH = 0.3
