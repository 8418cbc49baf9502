"""states -> one batch of pictures and sound for each kind of pass -> guided velocities -> states one step on

What the denoiser and the refiner share. The network predicts pictures and sound together; each has guidance of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiprod_components.calls import Denoise, Pass, Refine, Sampling
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
from aiprod_components.stages.ranks import Ranks
from aiprod_components.values import Latents


class LTX2FlowStage:
    """A stepped stage around LTX-2's transformer."""

    def __init__(
        self, family: LTX2Family, *, transformer: str, device: torch.device, fused: str | None = None, ranks: Ranks | None = None
    ) -> None:
        """With `ranks`, other processes compute a share of every video's tokens. `fused` is a LoRA that goes into the weights."""
        self._family, self._device = family, device
        self._network = (
            JointNetwork(family, transformer, device=device, fused=fused)
            if ranks is None
            else SharedNetwork(family, transformer, device=device, fused=fused, ranks=ranks)
        )
        self._normalization = Normalization.of_audio(family, device=torch.device("cpu"))  # where latents come from, and go

    def run(self, call: Denoise | Refine, progress: Progress) -> Latents:
        return run_steps(self, call, progress)

    @torch.inference_mode()
    def start(self, call: Denoise | Refine) -> JointState:
        positions, audio_positions = self._network.positions(call.video)
        return start_joint(
            call,
            grid=self._family.grid,
            normalization=self._normalization,
            positions=positions,
            audio_positions=audio_positions,
            device=self._device,
        )

    @torch.inference_mode()
    def step(self, states: Sequence[JointState]) -> list[JointState]:
        """One sampler step for every state. Raises ValueError unless all have one video shape, as much held, and the same LoRAs."""
        if len({(state.video, state.positions.shape, state.held is None, state.held_sound is None, state.loras) for state in states}) != 1:
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
    def finish(self, state: JointState) -> Latents:
        """Raises NumericalError when the numbers overflowed on the way: nobody is shown a black video."""
        if not (state.pictures.x.isfinite().all() and state.sound.x.isfinite().all()):
            raise NumericalError("the latents are not finite after the last step; lower guidance_scale or the scales of loras")
        _, *shape = self._family.grid.shape_of(state.video)
        sound = self._normalization.undone(state.sound.x.cpu())
        return Latents(
            grid_of(state.pictures.x, shape=(shape[0], shape[1], shape[2])).cpu(),
            audio_grid_of(sound, channels=AUDIO_CHANNELS),
            state.noise_state,
        )

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
        self._walks = [stream.walk(sampling, state.done, generator=self._generator) for stream in (state.pictures, state.sound)]
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
                skipped_blocks=self._state.sampling.guidance.stg_blocks,
                computed=self._computed.get(kind),
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
