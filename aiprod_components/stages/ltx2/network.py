"""rows of pictures and sound -> LTX-2's transformer, one batch for each kind of pass -> velocities of both"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup

from aiprod_components.calls import LoraUse, Pass
from aiprod_components.errors import InvalidRequestError
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.ltx2_loras import factors_of
from aiprod_components.stages.ltx2.cache import Computed, course_of
from aiprod_components.stages.ltx2.fitting import fit_transformer, load_lora
from aiprod_components.stages.ltx2.flow_state import Held
from aiprod_components.stages.ltx2.parallel import share_tokens
from aiprod_components.values import PromptEmbeds, VideoShape

TIMESTEPS = 1000  # of noise level 1


class Predicted(NamedTuple):
    """Of pictures and of sound; and what the row remembers now."""

    velocities: tuple[Tensor, Tensor]
    computed: Computed | None


@dataclass(frozen=True)
class Row:
    """One row of the network's batch."""

    kind: Pass
    pictures: Float[Tensor, "1 S C"]
    sound: Float[Tensor, "1 L D"]
    sigma: Float[Tensor, ""]
    held: Held | None
    held_sound: Held | None
    prompt_embeds: PromptEmbeds
    positions: Float[Tensor, "1 3 S 2"]
    audio_positions: Float[Tensor, "1 1 L 2"]
    skipped_blocks: tuple[int, ...]
    computed: Computed | None
    is_sound_alone: bool


# Passes that go through the network in one batch, what is without the prompt first, as in diffusers' pipelines: a batch of another size
# gives other last bits.
TOGETHER: tuple[tuple[Pass, ...], ...] = (("unconditional", "conditional"), ("perturbed",), ("isolated",))


class JointNetwork:
    """The transformer, its LoRAs, and how it is asked."""

    def __init__(self, family: LTX2Family, transformer: str, *, device: torch.device, fused: str | None = None) -> None:
        """`fused` is a LoRA that goes into the weights, for good (None: they are as they are)."""
        self._transformer: Any = family.load(transformer)
        self._family, self._device = family, device
        self._loaded: set[str] = set()
        self._used: tuple[LoraUse, ...] = ()
        if fused is not None:
            self._fuse(fused)
        self._transformer = fit_transformer(self._transformer, family.fitting, device=device)

    def share(self, group: ProcessGroup) -> None:
        """From now on every rank of the group must be asked the same. Raises ConfigError when the heads cannot be divided among them."""
        share_tokens(self._transformer, group)

    def positions(self, video: VideoShape) -> tuple[Float[Tensor, "1 3 S 2"], Float[Tensor, "1 1 L 2"]]:
        """Where the tokens of the grid and of the sound are: seconds and pixels, from and to."""
        _, frames, height, width = self._family.grid.shape_of(video)
        own, sound = self._transformer.rope, self._transformer.audio_rope
        return (
            own.prepare_video_coords(1, frames, height, width, self._device, fps=video.frame_rate),
            sound.prepare_audio_coords(1, self._family.grid.audio_tokens_of(video), self._device),
        )

    def predict(self, rows: Sequence[Row], *, video: VideoShape) -> list[Predicted]:
        """In the order of the rows."""
        found: dict[int, Predicted] = {}
        for kinds in TOGETHER:
            asked = [number for kind in kinds for number, row in enumerate(rows) if row.kind == kind]
            for blocks in dict.fromkeys(rows[number].skipped_blocks for number in asked):  # which are those of a whole batch
                numbers = [number for number in asked if rows[number].skipped_blocks == blocks]
                found |= zip(numbers, self._forward([rows[number] for number in numbers], video=video), strict=True)
        return [found[number] for number in range(len(rows))]

    def _forward(self, rows: list[Row], *, video: VideoShape) -> list[Predicted]:
        kind, (_, frames, height, width) = rows[0].kind, self._family.grid.shape_of(video)
        prompts = [_prompt(row) for row in rows]
        dtype = prompts[0][0].dtype
        timestep = torch.stack([row.sigma for row in rows]) * TIMESTEPS
        mask = torch.cat([mask for _, _, mask in prompts])
        asked = dict[str, Any](
            hidden_states=_batch([row.pictures for row in rows]).to(dtype),
            audio_hidden_states=_batch([row.sound for row in rows]).to(dtype),
            encoder_hidden_states=torch.cat([embeds for embeds, _, _ in prompts]),
            audio_encoder_hidden_states=torch.cat([embeds for _, embeds, _ in prompts]),
            timestep=_of_tokens(timestep, [row.held for row in rows]),
            audio_timestep=_of_tokens(timestep, [row.held_sound for row in rows]),
            sigma=timestep,
            audio_sigma=_of_freest(timestep, [row.held_sound for row in rows]),
            encoder_attention_mask=mask,
            audio_encoder_attention_mask=mask,
            num_frames=frames,
            height=height,
            width=width,
            fps=video.frame_rate,
            audio_num_frames=rows[0].sound.shape[1],
            video_coords=torch.cat([row.positions for row in rows]),
            audio_coords=torch.cat([row.audio_positions for row in rows]),
            isolate_modalities=kind == "isolated" or rows[0].is_sound_alone,
            spatio_temporal_guidance_blocks=list(rows[0].skipped_blocks) or None,
            use_cross_timestep=self._family.version.cross_timestep,
            return_dict=False,
        )
        with course_of(self._transformer, [row.computed for row in rows]) as course:
            pictures, sound = self._transformer(**asked)
        velocities = zip(pictures.float().split(1), sound.float().split(1), strict=True)
        return [Predicted(*each) for each in zip(velocities, course.computed, strict=True)]

    def use_loras(self, uses: tuple[LoraUse, ...]) -> None:
        """Beside the weights, which stay as they are."""
        if uses == self._used:
            return
        for use in uses:
            self._load(use.name)
        if uses:
            self._transformer.enable_lora()
            self._transformer.set_adapters([use.name for use in uses], [use.scale for use in uses])
        else:
            self._transformer.disable_lora()
        self._used = uses

    def _fuse(self, name: str) -> None:
        self._load(name)
        self._transformer.fuse_lora(adapter_names=[name])
        self._transformer.unload_lora()
        self._loaded.clear()

    def _load(self, name: str) -> None:
        if name in self._loaded:
            return
        factors = factors_of(self._family.lora(name).path)
        try:
            load_lora(self._transformer, factors, name=name, fitting=self._family.fitting)
        except (ValueError, KeyError, RuntimeError) as error:
            raise InvalidRequestError(f"lora {name!r} does not belong to {self._family.title}: {error}", field="loras") from error
        self._loaded.add(name)


def _batch(rows: list[Tensor]) -> Tensor:
    """One row stays as it lies in memory: kernels for bfloat16 sum in another order when it lies otherwise."""
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _prompt(row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """What pictures and sound read, and where it is."""
    prompt = row.prompt_embeds
    if row.kind == "unconditional":
        parts = prompt.negative_embeds, prompt.negative_audio_embeds, prompt.negative_mask
    else:
        parts = prompt.embeds, prompt.audio_embeds, prompt.mask
    embeds, audio_embeds, mask = parts
    assert embeds is not None and audio_embeds is not None and mask is not None, "a guided call needs a negative prompt's embeds"
    return embeds, audio_embeds, mask


def _of_tokens(timestep: Float[Tensor, "B"], held: list[Held | None]) -> Tensor:
    """Of every token where some are held, which are as much less noisy; else of the whole."""
    if held[0] is None:
        return timestep
    strength = torch.cat([each.strength for each in held if each is not None])
    return rearrange(timestep, "b -> b 1") * (1 - rearrange(strength, "b s 1 -> b s"))


def _of_freest(timestep: Float[Tensor, "B"], held: list[Held | None]) -> Float[Tensor, "B"]:
    """Of the whole: that of its noisiest token, so 0 where all is held."""
    return timestep if held[0] is None else _of_tokens(timestep, held).amax(dim=1)
