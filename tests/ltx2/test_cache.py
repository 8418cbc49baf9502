"""a threshold -> blocks that are left out: when, by whose memory, and how near what comes out stays"""

import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aiprod_components.calls import Denoise, LoraUse, Pass
from aiprod_components.errors import CancelledError, ConfigError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.families.ltx2_fitting import Fitting
from aiprod_components.local import Silent
from aiprod_components.pipelines import parse_request
from aiprod_components.stages.base import run_steps
from aiprod_components.stages.ltx2.cache import Computed, Course, Remembered, Streams
from aiprod_components.stages.ltx2.flow import LTX2Denoiser
from aiprod_components.stages.ltx2.flow_state import JointState
from aiprod_components.stages.ltx2.network import JointNetwork
from aiprod_components.stages.ranks import Ranks
from aiprod_components.values import Latents, PromptEmbeds
from deployments.settings import FamilyArgs, check_config
from tests.ltx2.conftest import FolderOf
from tests.ltx2.desk import sound_of
from tests.ltx2.folders import AUDIO_WIDTH, TEXT_WIDTH, VERSIONS, WIDTH
from tests.ltx2.test_examples import EXAMPLES, with_weights
from tests.ltx2.test_fitting import uncompiled

CPU = torch.device("cpu")
NOTHING, SOME, ALL = 1e-9, 0.45, 1e9  # thresholds, and how much is left out with them
STEPS = 16
KINDS: tuple[Pass, ...] = ("conditional", "unconditional", "perturbed", "isolated")

__all__ = ["uncompiled"]  # a fixture


class Counting:
    """A denoiser, and how often each of its blocks was computed."""

    def __init__(self, family: LTX2Family) -> None:
        self.family, self.stage = family, LTX2Denoiser(family, device=CPU)
        self.runs: Counter[int] = Counter()
        for number, block in enumerate(self.transformer.transformer_blocks):
            block.register_forward_hook(lambda *_, number=number: self.runs.update([number]))

    @property
    def transformer(self) -> Any:
        return cast(JointNetwork, self.stage._network)._transformer

    def call(self, seed: int = 5, *, steps: int = STEPS, **fields: Any) -> Denoise:
        request = {"prompt": "rain", "num_frames": 9, "height": 64, "width": 64, "seed": seed, "pipeline": "ti2vid_one_stage", **fields}
        plan = parse_request({"num_inference_steps": steps, **request}, family=self.family).plan(self.family)
        (call,) = (step.call for step in plan.steps if isinstance(step.call, Denoise))
        return replace(call, prompt_embeds=prompt_for(self.family, seed))

    def start(self, seed: int = 5, **fields: Any) -> JointState:
        return self.stage.start(self.call(seed, **fields))

    def step(self, *states: JointState) -> list[JointState]:
        return self.stage.step(states)

    def run(self, seed: int = 5, **fields: Any) -> Latents:
        return cast(Latents, self.stage.run(self.call(seed, **fields), Silent()))


def prompt_for(family: LTX2Family, seed: int) -> PromptEmbeds:
    """Random, of sixteen tokens."""
    generator = torch.Generator().manual_seed(seed)
    width, audio_width = (TEXT_WIDTH, TEXT_WIDTH) if family.version.name == "2.0" else (WIDTH, AUDIO_WIDTH)
    embeds, negative, audio, negative_audio = (
        torch.randn(1, 16, each, generator=generator).to(family.dtype) for each in (width, width, audio_width, audio_width)
    )
    mask = torch.ones(1, 16, dtype=torch.bool)
    return PromptEmbeds(embeds, mask, negative, mask, audio, negative_audio)


def same(one: Latents, other: Latents) -> bool:
    return torch.equal(one.video, other.video) and torch.equal(sound_of(one), sound_of(other))


def apart(one: Latents, other: Latents) -> float:
    """Relative, the greater of the two."""
    pairs = ((one.video, other.video), (sound_of(one), sound_of(other)))
    return max(float((new - old).norm() / old.norm()) for new, old in pairs)


Cached = Callable[..., Counting]


@pytest.fixture
def cached(folder_of: FolderOf) -> Cached:
    """`cached(0.1)`; 0: none."""

    def made(threshold: float, version: str = "2.3", **options: Any) -> Counting:
        folder = folder_of(version)
        given: dict[str, Any] = {"loras": str(folder.parent / "loras"), "variant": "dev", "precision": "float32", **options}
        return Counting(cast(LTX2Family, make_family("ltx2", weights=str(folder), cache=threshold, **given)))

    return made


# What comes out


@pytest.mark.parametrize("version", VERSIONS)
def test_a_threshold_below_every_change_leaves_out_nothing_and_changes_no_bit(version: str, cached: Cached):
    plain, careful = cached(0, version), cached(NOTHING, version)
    assert same(plain.run(steps=4), careful.run(steps=4)) and plain.runs == careful.runs
    assert plain.runs[0] == plain.runs[1] == 4 * (2 if version == "2.0" else 3)


def test_a_greater_threshold_leaves_out_blocks_and_stays_near(cached: Cached):
    plain, some, every = cached(0), cached(SOME), cached(ALL)
    whole, nearly, hardly = (each.run(steps=20) for each in (plain, some, every))
    assert some.runs[0] == every.runs[0] == plain.runs[0] == 60  # the first block always is
    assert every.runs[1] == 3 < some.runs[1] <= 50
    assert 0 < apart(nearly, whole) < 0.25 and apart(nearly, whole) < apart(hardly, whole)


def test_where_nothing_has_changed_what_is_reused_is_what_would_be_computed(cached: Cached):
    """Asked the same twice; sums of differences have other last bits."""
    here = cached(SOME)
    state = here.start()
    (once,) = here.step(state)
    before = Counter(here.runs)
    (again,) = here.step(replace(state, remembered=once.remembered))
    assert here.runs - before == Counter({0: 3})
    assert torch.allclose(again.pictures.x, once.pictures.x, atol=1e-5) and torch.allclose(again.sound.x, once.sound.x, atol=1e-5)


def test_a_sampler_that_asks_twice_a_step_remembers_between_its_questions(cached: Cached):
    here = cached(ALL)
    here.run(steps=3, sampler="heun")
    assert here.runs == {0: 3 * (2 * 3 - 1), 1: 3}


def test_a_pass_that_skips_the_first_blocks_attention_is_held_against_its_own_kind(cached: Cached):
    plain, some = cached(0), cached(NOTHING)
    fields: dict[str, Any] = {"skip_guidance": {"scale": 1.0, "blocks": [0]}, "steps": 3}
    assert same(plain.run(**fields), some.run(**fields))
    (state,) = some.step(some.start(**fields))
    assert state.sampling.guidance.stg_blocks == (0,)
    first = {kind: computed.changed[0] for kind, computed in state.remembered.passes.items()}
    assert first.keys() == {*KINDS} and not torch.equal(first["perturbed"], first["conditional"])


# Whose memory


def test_requests_in_turns_get_what_each_gets_alone(cached: Cached):
    here, alone = cached(SOME), cached(SOME)
    expected = [alone.run(seed) for seed in (1, 2)]
    states = [here.start(seed) for seed in (1, 2)]
    while states[0].done < states[0].total:
        states = [here.step(state)[0] for state in states]
    assert all(same(cast(Latents, here.stage.finish(state)), wanted) for state, wanted in zip(states, expected, strict=True))
    assert here.runs == alone.runs and here.runs[1] < here.runs[0]


def test_members_of_a_batch_join_and_leave_with_their_own_memory(cached: Cached):
    here = cached(ALL)
    (first,) = here.step(here.start(1))
    runs = Counter(here.runs)
    first, second = here.step(first, here.start(2))  # who joins has no memory, so all is computed
    assert here.runs - runs == Counter({0: 3, 1: 3})
    runs = Counter(here.runs)
    first, second = here.step(first, second)
    (second,) = here.step(second)
    assert here.runs - runs == Counter({0: 6}) and own_memory(first) and own_memory(second)
    alone = cached(ALL)
    (once,) = alone.step(alone.start(1))
    (twice,) = alone.step(replace(once, remembered=Remembered()))
    assert near(first, *alone.step(twice))
    late = alone.start(2)
    for _ in range(3):
        (late,) = alone.step(late)
    assert near(second, late)


def near(one: JointState, other: JointState) -> bool:
    """But for the last bits, which are others in a batch of another size."""
    assert one.done == other.done
    return torch.allclose(one.pictures.x, other.pictures.x, atol=1e-4) and torch.allclose(one.sound.x, other.sound.x, atol=1e-4)


def own_memory(state: JointState) -> bool:
    tensors = [tensor for computed in state.remembered.passes.values() for part in (computed.changed, computed.added) for tensor in part]
    return all(tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() for tensor in tensors)


def test_a_step_leaves_its_state_as_it_was(cached: Cached):
    here = cached(SOME)
    (state,) = here.step(here.start())
    (once,), (again,) = here.step(state), here.step(state)
    assert torch.equal(once.pictures.x, again.pictures.x) and torch.equal(once.sound.x, again.sound.x)


class Until:
    """Progress that is cancelled after a step."""

    def __init__(self, last: int) -> None:
        self._last = last

    def advance(self, done: int, total: int) -> None:
        if done == self._last:
            raise CancelledError("not wanted any more")


@pytest.mark.parametrize("last", [3, 99])
def test_what_was_remembered_ends_with_its_request(last: int, cached: Cached):
    here, kept = cached(SOME), list[weakref.ref[Computed]]()

    def watch(_before: JointState, after: JointState) -> None:
        kept.extend(map(weakref.ref, after.remembered.passes.values()))

    try:
        run_steps(here.stage, here.call(), Until(last), watch=watch)
    except CancelledError:
        assert last == 3
    assert len(kept) == 4 * min(last, STEPS) and not any(reference() for reference in kept)


def test_a_state_goes_elsewhere_without_its_memory_and_goes_on_cold(cached: Cached):
    here, plain = cached(ALL), cached(0)
    (state,) = here.step(here.start())
    sent = pickle.dumps(state)
    assert state.remembered.passes and len(sent) == len(pickle.dumps(replace(state, remembered=Remembered())))
    arrived = pickle.loads(sent)
    ((restored,), (computed,)) = cached(ALL).step(arrived), plain.step(arrived)
    assert torch.equal(restored.pictures.x, computed.pictures.x) and torch.equal(restored.sound.x, computed.sound.x)
    (warm,) = here.step(state)
    assert not torch.equal(warm.pictures.x, computed.pictures.x)


# The course of a batch


def streams_of(*rows: float) -> Streams:
    tokens = torch.tensor(rows)[:, None, None]
    return tokens.expand(-1, 3, 2).clone(), 10 * tokens.expand(-1, 2, 1)


def through(course: Course, given: Streams, threshold: float, factors: tuple[float, ...] = (2.0, 3.0, 4.0)) -> tuple[Streams, int]:
    """What comes out of blocks that multiply, and how many were asked."""
    computed: list[float] = []

    def multiply(factor: float, hidden_states: Tensor, audio_hidden_states: Tensor) -> Streams:
        computed.append(factor)
        return factor * hidden_states, factor * audio_hidden_states

    blocks = [lambda factor=factor, **tokens: multiply(factor, **tokens) for factor in factors]
    for block in course.through(blocks, threshold=threshold):
        given = block(hidden_states=given[0], audio_hidden_states=given[1])
    return given, len(computed)


def test_each_row_gets_what_its_own_blocks_added():
    course = Course([None, None])
    (pictures, _), asked_for = through(course, streams_of(1.0, 5.0), threshold=0.5)
    assert asked_for == 3 and pictures[:, 0, 0].tolist() == [24.0, 120.0]
    again = Course(course.computed)
    (pictures, sound), asked_for = through(again, streams_of(1.1, 5.1), threshold=0.5)
    assert asked_for == 1 and again.computed == course.computed
    # Twice what goes in, and 24 - 2 times of what went in before.
    assert pictures[:, 0, 0].tolist() == pytest.approx([2.2 + 22.0, 10.2 + 110.0])
    assert torch.allclose(sound[:, 0, 0], 10 * pictures[:, 0, 0])
    swapped, asked_for = through(Course(course.computed[::-1]), streams_of(5.0, 1.0), threshold=0.5)
    assert asked_for == 1 and swapped[0][:, 0, 0].tolist() == [120.0, 24.0]


@pytest.mark.parametrize("rows", [(1.0, 9.0), (9.0, 5.0), (float("nan"), 5.0)])
def test_all_are_computed_where_one_has_changed_too_much(rows: tuple[float, float]):
    course = Course([None, None])
    through(course, streams_of(1.0, 5.0), threshold=0.5)
    _, asked_for = through(course, streams_of(*rows), threshold=0.5)
    assert asked_for == 3


@pytest.mark.parametrize("stream", [0, 1])
def test_both_streams_must_be_near(stream: int):
    course = Course([None])
    through(course, streams_of(1.0), threshold=0.5)
    (pictures, sound) = streams_of(1.0)
    _, asked_for = through(course, (3 * pictures, sound) if stream == 0 else (pictures, 3 * sound), threshold=0.5)
    assert asked_for == 3


class Looks(TorchDispatchMode):
    """How often a number is fetched from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.item.default)
        return func(*args, **(kwargs or {}))


def test_a_pass_looks_at_the_device_once_more(cached: Cached):
    looks: list[int] = []
    for threshold in (0, NOTHING):
        here = cached(threshold)
        states = here.step(here.start(1), here.start(2))
        with Looks() as looking:
            here.step(*states)
        looks.append(looking.count)
    assert looks[1] - looks[0] == 3  # forwards of four kinds of pass


# Options


def test_the_option_comes_from_the_config_and_is_in_the_fingerprint(folder_of: FolderOf):
    weights = str(folder_of("2.3"))
    made, plain, none = (FamilyArgs(name="ltx2", weights=weights, cache=given).make() for given in (0.05, None, 0))
    assert cast(LTX2Family, made).fitting == Fitting(cache=0.05) and cast(LTX2Family, plain).fitting == Fitting()
    assert made.fingerprint != plain.fingerprint == none.fingerprint


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_what_is_no_threshold_is_refused(threshold: float):
    with pytest.raises(ConfigError, match=r"cache .* of ltx2 is no threshold; it is 0 \(none\) or more"):
        Fitting(cache=threshold)


def test_blocks_that_come_and_go_are_not_left_out():
    with pytest.raises(ConfigError, match="leave out one of them"):
        Fitting(cache=0.05, offload="group")


def test_ranks_are_refused_before_any_is_started(folder_of: FolderOf):
    family = make_family("ltx2", weights=str(folder_of("2.3")), cache=0.05)

    def launch(*_: Any) -> Any:
        raise AssertionError("nothing should start")

    with pytest.raises(ConfigError, match="cache and ranks do not go together; leave out cache or placement_group_bundles"):
        LTX2Denoiser(cast(LTX2Family, family), device=CPU, ranks=Ranks(2, launch))


def test_a_config_with_ranks_is_refused_as_well(folder_of: FolderOf, tmp_path: Path):
    config = with_weights(yaml.safe_load(EXAMPLES["eight-h100-pairs"].read_text()), folder_of("2.3"))
    config["applications"][0]["args"]["cache"] = 0.05
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"ltx2\.denoiser: cache and ranks do not go together"):
        check_config(tmp_path / "config.yaml")


def test_other_families_have_no_cache():
    with pytest.raises(Exception, match="leave out cache"):
        make_family("miniature", cache=0.05)


def test_without_a_cache_the_transformer_is_as_it_was_loaded(cached: Cached):
    plain, other = cached(0), cached(SOME)
    assert type(plain.transformer.transformer_blocks) is nn.ModuleList
    assert plain.transformer.state_dict().keys() == other.transformer.state_dict().keys()
    (state,) = plain.step(plain.start())
    assert state.remembered == Remembered()


def test_float8_goes_with_it(cached: Cached):
    plain, careful, every = (cached(threshold, precision="float8") for threshold in (0, NOTHING, ALL))
    assert same(plain.run(steps=3), careful.run(steps=3))
    every.run(steps=3)
    assert every.runs == {0: 9, 1: 3}


def test_loras_go_with_it(cached: Cached):
    plain, careful = cached(0), cached(NOTHING)
    before, with_lora = careful.run(steps=2), careful.run(steps=2, loras=[{"name": "dolly", "scale": 1.0}])
    assert careful.call(loras=[{"name": "dolly", "scale": 1.0}]).loras == (LoraUse("dolly", 1.0),)
    assert same(plain.run(steps=2, loras=[{"name": "dolly", "scale": 1.0}]), with_lora)
    assert same(careful.run(steps=2), before) and not same(with_lora, before)


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_compiled_blocks_go_with_it(cached: Cached):
    plain, careful, every = cached(0), cached(NOTHING, compile=True), cached(ALL, compile=True)
    assert apart(careful.run(steps=3), plain.run(steps=3)) < 1e-5
    assert careful.runs == plain.runs
    every.run(steps=3)
    assert every.runs == {0: 9, 1: 3}
