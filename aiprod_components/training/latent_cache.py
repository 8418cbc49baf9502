"""seeds -> scenes -> clips -> VAE latents, made once and kept in a file"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiprod_components.media.controls import CONTROLS
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.world import Scene, SceneMix
from aiprod_components.models.checkpoint import load_model
from aiprod_components.models.video_vae import VideoVAE, VideoVAEConfig
from aiprod_components.training.dataset import FRAME_RATE, clips_of, scenes_of

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


@dataclass(frozen=True)
class ClipSet:
    """`count` square clips; clip k is drawn from seed k. With a control, what it sees in them."""

    size: int
    num_frames: int
    count: int
    mix: SceneMix
    control: str | None = None
    frame_rate: float = FRAME_RATE

    @property
    def name(self) -> str:
        """What tells its cache from others of the same scenes and encoder."""
        rate = "" if self.frame_rate == FRAME_RATE else f"@{self.frame_rate:g}"
        return f"{self.control or 'latents'}_{self.size}x{self.num_frames}{rate}x{self.count}"


def open_cache(folder: Path, clips: ClipSet, *, weights: Path, device: str) -> LatentCache:
    """Reads the cache from `folder`, or renders and encodes it with the VAE in `weights`.

    Its name has a digest of the encoder and the mix, so other latents are another file. A change of the world's code is not seen:
    delete the folder then.
    """
    file = folder / f"{clips.name}_{_digest(weights / 'vae.safetensors', clips.mix)}.safetensors"
    if not file.is_file():
        vae = load_model(VideoVAE, VideoVAEConfig, weights / "vae").to(device).to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]  # missing in torch's stubs
        starts = range(0, clips.count, CHUNK)
        chunks = [_encode(vae, list(range(start, min(start + CHUNK, clips.count))), clips=clips, device=device) for start in starts]
        save_whole({"latents": torch.cat(chunks)}, file)
    return LatentCache(load_file(file)["latents"], clips.mix)


def save_whole(tensors: dict[str, Tensor], file: Path) -> None:
    """An interrupted run leaves nothing that looks whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(file)


def _digest(vae: Path, mix: SceneMix) -> str:
    """Of all that latents depend on: the encoder, the channels' statistics and the scenes."""
    digest = hashlib.sha256(repr(mix).encode())
    for name, tensor in sorted(load_file(vae).items()):
        if not name.startswith("decoder."):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:12]


def _encode(vae: VideoVAE, seeds: list[int], *, clips: ClipSet, device: str) -> Tensor:
    scenes = scenes_of(seeds, mix=clips.mix)
    frames = clips_of(scenes, num_frames=clips.num_frames, size=clips.size, frame_rate=clips.frame_rate)
    shown = frames if clips.control is None else CONTROLS[clips.control](frames)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        return vae.encode(to_unit(shown).to(device)).half().cpu().contiguous()
