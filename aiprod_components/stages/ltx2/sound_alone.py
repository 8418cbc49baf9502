"""DenoiseSound -> noise of a sound, and of the few tokens of pictures that the network must have beside -> the joint state

Pictures and sound do not see each other in any pass, so nothing of the pictures is heard. Noise of the sound is drawn first: it is
the seed's, whatever stands beside it.
"""

from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.calls import DenoiseSound
from aiprod_components.stages.ltx2.flow_state import AUDIO_BINS, AUDIO_CHANNELS, JointState, Stream
from aiprod_components.stages.ltx2.latents import audio_tokens_of
from aiprod_components.values import LatentGrid, PromptEmbeds, VideoShape


def pictures_beside(video: VideoShape, *, grid: LatentGrid, tokens: int) -> VideoShape:
    """One row of so many tokens, for as long as the sound."""
    return replace(video, height=grid.space, width=grid.space * tokens)


def start_sound(
    call: DenoiseSound,
    *,
    grid: LatentGrid,
    positions: Float[Tensor, "1 3 S 2"],
    audio_positions: Float[Tensor, "1 1 L 2"],
    tokens: int,
    device: torch.device,
) -> JointState:
    """`positions` are those of the pictures beside, of which one frame is taken. The sampling's guidance becomes that of the sound."""
    generator = torch.Generator().manual_seed(call.sampling.seed)
    sound = torch.randn((1, AUDIO_CHANNELS, grid.audio_tokens_of(call.video), AUDIO_BINS), generator=generator)
    pictures = torch.randn((1, tokens, grid.channels), generator=generator)
    return JointState(
        pictures=Stream(pictures.to(device)),
        sound=Stream(audio_tokens_of(sound).to(device)),
        done=0,
        sampling=replace(call.sampling, audio_guidance=call.sampling.guidance),
        prompt_embeds=cast(PromptEmbeds, call.prompt_embeds).to(device),
        held=None,
        held_sound=None,
        positions=positions[:, :, :tokens],
        audio_positions=audio_positions,
        video=replace(pictures_beside(call.video, grid=grid, tokens=tokens), num_frames=1),
        loras=call.loras,
        noise_state=generator.get_state(),
        is_sound_alone=True,
    )
