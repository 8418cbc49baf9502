"""states -> one batch of pictures and sound for each kind of pass -> guided velocities -> states one step on

What the denoiser and the refiner share. The network predicts pictures and sound together; each has guidance of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import Denoise, DenoiseSound, Pass, Refine, Sampling
from aiprod_components.diffusion.guiders import combine
from aiprod_components.diffusion.samplers import Point, Query
from aiprod_components.errors import NumericalError
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.stages.base import Progress, run_steps
from aiprod_components.stages.ltx2.cache import Remembered
from aiprod_components.stages.ltx2.flow_state import AUDIO_CHANNELS, JointState, Stream, start_joint
from aiprod_components.stages.ltx2.latents import Normalization, audio_grid_of, grid_of
from aiprod_components.stages.ltx2.network import JointNetwork, Predicted, Row
from aiprod_components.stages.ltx2.shared import SharedNetwork
from aiprod_components.stages.ltx2.sound_alone import pictures_beside, start_sound
from aiprod_components.stages.ranks import Ranks
from aiprod_components.values import AudioLatents, Latents


class LTX2FlowStage:
    """A stepped stage around LTX-2's transformer."""

    def __init__(
        self, family: LTX2Family, *, transformer: str, device: torch.device, fused: str | None = None, ranks: Ranks | None = None
    ) -> None:
        """With `ranks`, other processes compute a share of every video's tokens. `fused` is a LoRA that goes into the weights."""
        self._family, self._device = family, device
        self._beside = 1 if ranks is None else ranks.count  # tokens of pictures beside a sound alone: each rank must have one
        self._network = (
            JointNetwork(family, transformer, device=device, fused=fused)
            if ranks is None
            else SharedNetwork(family, transformer, device=device, fused=fused, ranks=ranks)
        )
        self._normalization = Normalization.of_audio(family, device=torch.device("cpu"))  # where latents come from, and go

    def run(self, call: Denoise | DenoiseSound | Refine, progress: Progress) -> Latents | AudioLatents:
        return run_steps(self, call, progress)

    @torch.inference_mode()
    def start(self, call: Denoise | DenoiseSound | Refine) -> JointState:
        if isinstance(call, DenoiseSound):
            return self._start_sound(call)
        positions, audio_positions = self._network.positions(call.video)
        return start_joint(
            call,
            grid=self._family.grid,
            normalization=self._normalization,
            positions=positions,
            audio_positions=audio_positions,
            device=self._device,
        )

    def _start_sound(self, call: DenoiseSound) -> JointState:
        grid, tokens = self._family.grid, self._beside
        positions, audio_positions = self._network.positions(pictures_beside(call.video, grid=grid, tokens=tokens))
        return start_sound(call, grid=grid, positions=positions, audio_positions=audio_positions, tokens=tokens, device=self._device)

    @torch.inference_mode()
    def step(self, states: Sequence[JointState]) -> list[JointState]:
        """One sampler step for every state. Raises ValueError unless all have one shape, as much held, and the same LoRAs."""
        if len({_kind(state) for state in states}) != 1:
            raise ValueError("states of one step must have one video shape, as many guide tokens, and the same LoRAs")
        self._network.use_loras(states[0].loras)
        walks = [_JointWalk(state) for state in states]
        while asking := [walk for walk in walks if walk.is_asking]:
            rows = [row for walk in asking for row in walk.rows()]
            predicted = iter(self._network.predict(rows, video=states[0].video))
            for walk in asking:
                walk.answer({kind: next(predicted) for kind in walk.passes})
        return [walk.arrived() for walk in walks]

    @torch.inference_mode()
    def finish(self, state: JointState) -> Latents | AudioLatents:
        """Raises NumericalError when the numbers overflowed on the way: nobody is shown a black video."""
        wanted = (state.sound,) if state.is_sound_alone else (state.pictures, state.sound)
        if not all(stream.x.isfinite().all() for stream in wanted):
            raise NumericalError("the latents are not finite after the last step; lower guidance_scale or the scales of loras")
        sound = audio_grid_of(self._normalization.undone(state.sound.x.cpu()), channels=AUDIO_CHANNELS)
        if state.is_sound_alone:
            return AudioLatents(sound)
        _, *shape = self._family.grid.shape_of(state.video)
        return Latents(grid_of(state.pictures.x, shape=(shape[0], shape[1], shape[2])).cpu(), sound, state.noise_state)

    @property
    def failure(self) -> str | None:
        """Why it cannot work any more: a rank is lost."""
        return self._network.failure if isinstance(self._network, SharedNetwork) else None

    def close(self) -> None:
        """Ends the other ranks."""
        if isinstance(self._network, SharedNetwork):
            self._network.close()

    def preview(self, before: JointState, after: JointState) -> UInt8[Tensor, "T h w 3"] | None:
        """None: nothing cheap is known that shows these latents."""
        return None


def _kind(state: JointState) -> tuple[Any, ...]:
    """What states of one batch have in common."""
    lengths = state.positions.shape, state.sound.x.shape
    return state.video, *lengths, state.is_sound_alone, state.held is None, state.held_sound is None, state.loras


class LTX2Denoiser(LTX2FlowStage):
    def __init__(self, family: LTX2Family, *, device: torch.device, ranks: Ranks | None = None) -> None:
        super().__init__(family, transformer=family.transformer, device=device, ranks=ranks)


class LTX2Refiner(LTX2FlowStage):
    """A guided checkpoint refines with the distilled LoRA fused in: swapping 8 GB for every request would take longer than the steps."""

    def __init__(self, family: LTX2Family, *, device: torch.device, ranks: Ranks | None = None) -> None:
        lora = family.refiner_lora
        super().__init__(family, transformer="transformer", device=device, fused=None if lora is None else lora.name, ranks=ranks)


class _JointWalk:
    """A state on its way through one step: pictures and sound ask together, having one sampler and one set of noise levels."""

    def __init__(self, state: JointState) -> None:
        self._state = state
        self._generator = state.generator
        sampling: Sampling = state.sampling
        streams = ((state.pictures, state.held), (state.sound, state.held_sound))
        self._walks = [stream.walk(sampling, state.done, held=held, generator=self._generator) for stream, held in streams]
        self.passes: tuple[Pass, ...] = sampling.passes_at(state.sigma)
        self._queries: list[Query] = [next(walk) for walk in self._walks]
        self._points: list[Point] = []
        self._momenta = [state.pictures.momentum, state.sound.momentum]
        self._computed = dict(state.remembered.passes)

    @property
    def is_asking(self) -> bool:
        return not self._points

    def rows(self) -> list[Row]:
        """What the samplers' question means for the network: a row for each pass."""
        pictures, sound = self._queries
        return [
            Row(
                kind=kind,
                pictures=pictures.x,
                sound=sound.x,
                sigma=pictures.sigma,
                held=self._state.held,
                held_sound=self._state.held_sound,
                prompt_embeds=self._state.prompt_embeds,
                positions=self._state.positions,
                audio_positions=self._state.audio_positions,
                skipped_blocks=self._state.sampling.guidance.stg_blocks if kind == "perturbed" else (),
                computed=self._computed.get(kind),
                is_sound_alone=self._state.is_sound_alone,
            )
            for kind in self.passes
        ]

    def answer(self, predicted: dict[Pass, Predicted]) -> None:
        """Takes a prediction for each pass, and goes on to the next question or to the end of the step."""
        self._computed |= {kind: each.computed for kind, each in predicted.items() if each.computed is not None}
        velocities = [self._guided(predicted, part) for part in (0, 1)]
        queries: list[Query] = []
        for walk, velocity in zip(self._walks, velocities, strict=True):
            try:
                queries.append(walk.send(velocity))
            except StopIteration as end:
                self._points.append(end.value)
        self._queries = queries

    def arrived(self) -> JointState:
        pictures, sound = (Stream(point.x, point.memory, momentum) for point, momentum in zip(self._points, self._momenta, strict=True))
        arrived = replace(self._state, pictures=pictures, sound=sound, done=self._state.done + 1, noise_state=self._generator.get_state())
        return replace(arrived, remembered=Remembered(self._computed))

    def _guided(self, predicted: dict[Pass, Predicted], part: int) -> Float[Tensor, "1 S C"]:
        """The velocity that the guided estimate of clean tokens means; what is held stays as it is held."""
        x, sigma = self._queries[part]
        sampling = self._state.sampling
        guidance = (sampling.guidance, sampling.audio_guidance)[part]
        denoised: dict[Pass, Tensor] = {kind: x - each.velocities[part] * sigma for kind, each in predicted.items()}
        stream = (self._state.pictures, self._state.sound)[part]
        guided = combine(guidance, denoised, momentum=stream.momentum)
        self._momenta[part] = guided.momentum
        clean: Any = guided.denoised
        if (held := (self._state.held, self._state.held_sound)[part]) is not None:
            clean = clean * (1 - held.strength) + held.clean * held.strength
        return (x - clean) / sigma
