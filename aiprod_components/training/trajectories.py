"""captions, noise -> the guided teacher's latents at a few noise levels on its way: what a student with few steps learns

The teacher takes `pace` steps for each of the student's, so the levels of the student's schedule are among its own. Every trajectory is
of one seed: its scene's caption, its noise, and whether its first latent frame is given.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor

from aiprod_components.calls import Denoise, EncodePrompt, Pin, Sampling
from aiprod_components.diffusion.schedulers import shifted_flow
from aiprod_components.families.base import Family
from aiprod_components.local import Silent
from aiprod_components.media.frames import to_unit
from aiprod_components.miniature.captions import LANGUAGES, write_caption
from aiprod_components.miniature.world import SceneMix
from aiprod_components.models.video_vae import VideoVAE
from aiprod_components.stages.denoiser import Denoiser
from aiprod_components.stages.flow_state import FlowState
from aiprod_components.stages.text_encoder import TextEncoding
from aiprod_components.training.dataset import clips_of, scenes_of, step_rng
from aiprod_components.training.latent_cache import save_whole
from aiprod_components.values import Latents, VideoShape

BATCH = 16


@dataclass(frozen=True)
class Trajectories:
    """Latents of trajectory n at the student's k-th noise level, and whether its first latent frame was given."""

    latents: Float[Tensor, "N K C T H W"]
    pinned: Bool[Tensor, " N"]


@dataclass(frozen=True)
class TrajectorySet:
    """`count` trajectories of the family's defaults; `pace` teacher steps for each of the student's `student_steps`."""

    count: int
    video: VideoShape
    mix: SceneMix
    student_steps: int
    pace: int
    english_share: float
    pinned_share: float

    def name(self, weights: Path) -> str:
        """With a digest of all that the latents depend on: what is asked for, and the networks that make them."""
        digest = hashlib.sha256(repr(self).encode())
        for network in ("denoiser", "text_encoder", "vae"):
            digest.update((weights / f"{network}.safetensors").read_bytes())
        return f"trajectories_{self.video.height}x{self.video.num_frames}x{self.count}_{digest.hexdigest()[:12]}"

    def pinned(self, row: int) -> bool:
        """Whether a trajectory's first latent frame is given. By a chance of its own, which knows nothing of the scene."""
        return step_rng(11, row).random() < self.pinned_share

    def caption(self, row: int) -> str:
        """What the teacher of a trajectory was told, and the student is."""
        rng = step_rng(7, row)
        language = "en" if rng.random() < self.english_share else rng.choice(LANGUAGES)
        return write_caption(scenes_of([row], mix=self.mix)[0], language=language, rng=rng, drop=rng.random() * 0.3).text


def open_trajectories(folder: Path, wanted: TrajectorySet, *, family: Family, device: torch.device) -> Trajectories:
    """Reads them from `folder`, or lets the family's denoiser make them, which may be stopped and goes on where it was.

    Another teacher's are another file.
    """
    assert family.weights is not None, "a teacher has been trained"
    name = wanted.name(family.weights)
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        teacher = _Teacher(wanted, family=family, device=device)
        parts = [teacher.part(start, folder / f"{name}_{start}.part") for start in range(0, wanted.count, BATCH)]
        save_whole({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, file)
        for part in folder.glob(f"{name}_*.part"):
            part.unlink()
    tensors = load_file(file)
    return Trajectories(tensors["latents"], tensors["pinned"].bool())


class _Teacher:
    def __init__(self, wanted: TrajectorySet, *, family: Family, device: torch.device) -> None:
        self._wanted, self._family, self._device = wanted, family, device
        self._denoiser = Denoiser(family, device=device)
        self._text = TextEncoding(family, device=device)
        self._vae = cast(VideoVAE, family.load("vae")).to(device)

    def part(self, start: int, file: Path) -> dict[str, Tensor]:
        if not file.is_file():
            save_whole(self._walk(list(range(start, min(start + BATCH, self._wanted.count)))), file)
        return load_file(file)

    def _walk(self, rows: list[int]) -> dict[str, Tensor]:
        wanted = self._wanted
        pinned = [wanted.pinned(row) for row in rows]
        states = [self._denoiser.start(self._call(row, pinned=given)) for row, given in zip(rows, pinned, strict=True)]
        seen = [self._latents(states)]
        with torch.autocast(self._device.type, torch.bfloat16):
            while states[0].done < states[0].total:
                states = self._denoiser.step(states)
                if states[0].done % wanted.pace == 0:
                    seen.append(self._latents(states))
        return {"latents": torch.stack(seen, dim=1).half(), "pinned": torch.tensor(pinned).to(torch.uint8)}

    def _latents(self, states: list[FlowState]) -> Tensor:
        return torch.cat([state.x for state in states]).float().cpu()

    def _call(self, row: int, *, pinned: bool) -> Denoise:
        wanted, sampling = self._wanted, self._family.sampling
        shift = sampling.shift.at(self._family.grid.tokens_of(wanted.video))
        sigmas = shifted_flow(wanted.student_steps * wanted.pace, shift=shift)
        prompt = self._text.run(EncodePrompt(wanted.caption(row), ""), Silent())
        pins = (Pin(Latents(self._first_frame(row)), 0, 1.0),) if pinned else ()
        return Denoise(prompt, wanted.video, Sampling(sigmas, sampling.guidance, row), pins)

    @torch.inference_mode()
    def _first_frame(self, row: int) -> Tensor:
        still = clips_of(scenes_of([row], mix=self._wanted.mix), num_frames=1, size=self._wanted.video.height)
        return self._vae.encode(to_unit(still).to(self._device)).cpu()
