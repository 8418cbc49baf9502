"""seeds -> scenes -> clips -> VAE latents, made once and kept in a file"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import Scene, SceneMix
from aiprod_components.models.checkpoint import load_model
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.training.dataset import clips_of, scenes_of

CHUNK = 8


@dataclass(frozen=True)
class LatentCache:
    """Normalized latents of clip k at row k; clip k is drawn from seed k, so caches of two sizes show the same scenes."""

    latents: Float[Tensor, "N C T H W"]
    mix: SceneMix

    def __len__(self) -> int:
        return len(self.latents)

    def scenes(self, rows: list[int]) -> list[Scene]:
        return scenes_of(rows, mix=self.mix)


def open_cache(folder: Path, *, weights: Path, count: int, num_frames: int, size: int, mix: SceneMix, device: str) -> LatentCache:
    """Reads the cache from `folder`, or renders and encodes it with the VAE in `weights`."""
    file = folder / f"latents_{size}x{num_frames}x{count}.safetensors"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        vae = load_model(VideoVAE, VideoVAEConfig, weights / "vae").to(device).to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]  # missing in torch's stubs
        chunks = [
            _encode(vae, list(range(start, min(start + CHUNK, count))), num_frames=num_frames, size=size, mix=mix, device=device)
            for start in range(0, count, CHUNK)
        ]
        save_file({"latents": torch.cat(chunks)}, file)
    return LatentCache(load_file(file)["latents"], mix)


def _encode(vae: VideoVAE, seeds: list[int], *, num_frames: int, size: int, mix: SceneMix, device: str) -> Tensor:
    frames = to_unit(clips_of(scenes_of(seeds, mix=mix), num_frames=num_frames, size=size)).to(device)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        return vae.encode(frames).half().cpu().contiguous()
