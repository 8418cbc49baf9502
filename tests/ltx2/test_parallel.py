"""one transformer over two and four processes with gloo -> what it computes alone, to the last bits but one"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from torch import Tensor

from aiprod_components.errors import ConfigError, InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.families.ltx2 import LTX2Family
from aiprod_components.local import LocalStages, Silent
from aiprod_components.pipelines import parse_request
from aiprod_components.plan import fill
from aiprod_components.stages import make_stage
from aiprod_components.stages.ltx2.parallel import share_tokens
from aiprod_components.stages.ranks import RankGroup, Ranks, Recipe
from aiprod_components.values import Latents, Picture
from tests.ltx2.conftest import FolderOf
from tests.ltx2.folders import TRANSFORMER, TRANSFORMER_23, TRANSFORMER_25, lively
from tests.ltx2.rank_processes import CPU, RankProcess
from tests.ltx2.test_parity import picture

# Sums of other sizes are made in another order.
TOLERANCE = 1e-5
CONFIGS = {"2.0": TRANSFORMER, "2.3": TRANSFORMER_23, "2.5": TRANSFORMER_25}


class Asked:
    """A tiny transformer, shared by the plan that is tested or by diffusers' own."""

    def __init__(self, config: dict[str, Any], plan: str, device: torch.device) -> None:
        self._plan = plan
        self._transformer: Any = lively(lambda: LTX2VideoTransformer3DModel(**config), name="transformer", seed=0).to(device)
        self.computed = 0
        self._transformer.transformer_blocks[0].ff.register_forward_pre_hook(self._count)

    def share(self, group: dist.ProcessGroup) -> None:
        if self._plan == "ours":
            share_tokens(self._transformer, group)
        else:
            use_stock_plan(self._transformer, group)

    def ask(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor] | str:
        try:
            return self._transformer(**arguments, return_dict=False)
        except RuntimeError as error:
            return str(error)

    def _count(self, _module: Any, args: tuple[Tensor]) -> None:
        self.computed = args[0].shape[1]


def use_stock_plan(transformer: Any, group: dist.ProcessGroup) -> None:
    """What `enable_parallelism` does, which asks for an accelerator first."""
    config = ContextParallelConfig(ulysses_degree=group.size())
    mesh = dist.device_mesh.init_device_mesh("cpu", mesh_shape=config.mesh_shape, mesh_dim_names=config.mesh_dim_names)
    parallel = ParallelConfig(context_parallel_config=config)
    parallel.setup(group.rank(), group.size(), CPU, mesh=mesh)
    for processor in transformer.attn_processors.values():
        processor._parallel_config = parallel
    apply_context_parallel(transformer, config, transformer._cp_plan)


def arguments_for(version: str, *, frames: int, height: int, width: int, rows: int = 2, per_token: bool = False) -> dict[str, Any]:
    """Of a forward of tokens on a grid, with text of ten tokens."""
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator)
    tokens, sound = frames * height * width, 7
    rope = LTX2VideoTransformer3DModel(**CONFIGS[version]).rope
    widths = (48, 48) if CONFIGS[version].get("use_prompt_embeddings", True) else (64, 32)
    sigma = 1000 * torch.rand(rows, generator=generator)
    return {
        "hidden_states": draw(rows, tokens, 128),
        "audio_hidden_states": draw(rows, sound, 128),
        "encoder_hidden_states": draw(rows, 10, widths[0]),
        "audio_encoder_hidden_states": draw(rows, 10, widths[1]),
        "timestep": sigma[:, None] * torch.rand(rows, tokens, generator=generator) if per_token else sigma,
        "audio_timestep": sigma,
        "sigma": sigma,
        "video_coords": rope.prepare_video_coords(rows, frames, height, width, CPU),
        "audio_num_frames": sound,
        "encoder_attention_mask": None,
        "use_cross_timestep": version != "2.0",
    }


@contextmanager
def group_of(recipe: Recipe, count: int) -> Iterator[RankGroup]:
    group = RankGroup(recipe, Ranks(count, RankProcess, 60.0), device=CPU)
    try:
        yield group
    finally:
        group.close()


def apart(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    """The greatest difference, as a part of the greatest value."""
    return max(((mine - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cases(version: str) -> dict[str, dict[str, Any]]:
    """Kinds of forwards: with what a pass leaves out, with noise levels of tokens, of tokens that ranks can and cannot divide."""
    even, odd = (arguments_for(version, frames=2, height=2, width=3), arguments_for(version, frames=3, height=3, width=3))
    levels = arguments_for(version, frames=3, height=1, width=3, per_token=True)
    mask = torch.ones(2, 10)
    found = {
        "even": even,
        "odd": odd,
        "masked": odd | {"encoder_attention_mask": mask, "audio_encoder_attention_mask": mask},
        "isolated": odd | {"isolate_modalities": True},
        "levels": levels,
        "levels, isolated": levels | {"isolate_modalities": True},
        "attention": odd | {"video_self_attention_mask": torch.rand(2, 27, 27, generator=torch.Generator().manual_seed(1)) > 0.5},
    }
    if version != "2.0":
        found["perturbed"] = odd | {"spatio_temporal_guidance_blocks": [1]}
        found["half perturbed"] = odd | {"spatio_temporal_guidance_blocks": [1], "perturbation_mask": torch.tensor([0.0, 1.0])}
    if version == "2.5":
        found["keyframes"] = odd | {"video_keyframes_mask": torch.cat([torch.ones(2, 9, 1), torch.zeros(2, 18, 1)], dim=1)}
    return found


@pytest.mark.parametrize(
    ("version", "ranks", "rope"), [("2.0", 2, "split"), ("2.3", 2, "split"), ("2.5", 4, "split"), ("2.3", 2, "interleaved")]
)
def test_ranks_compute_what_one_process_does(version: str, ranks: int, rope: str) -> None:
    """Measured: at most 3e-7 apart on two ranks and 1.5e-6 on four, of which each has three tokens."""
    recipe = partial(Asked, CONFIGS[version] | {"rope_type": rope}, "ours")
    alone = recipe(CPU)
    with group_of(recipe, ranks) as group, torch.inference_mode():
        found = {name: apart(group.together("ask", each), cast(Any, alone.ask(each))) for name, each in cases(version).items()}
    assert max(found.values()) < TOLERANCE, found


def test_a_rank_computes_its_share_of_the_tokens_alone() -> None:
    odd = arguments_for("2.3", frames=3, height=3, width=3)
    with group_of(partial(Asked, TRANSFORMER_23, "ours"), 2) as group, torch.inference_mode():
        group.together("ask", odd)
        assert group.made.computed == 14


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    """The connectors put registers where padding was. Every rank has all of the text, so a mask is no trouble either."""
    both = cases("2.3")
    with group_of(partial(Asked, TRANSFORMER_23, "ours"), 2) as group, torch.inference_mode():
        found = apart(group.together("ask", both["odd"]), group.together("ask", both["masked"]))
    assert found < TOLERANCE


def test_the_stock_plan_fails_where_rotary_embeddings_are_split() -> None:
    with group_of(partial(Asked, TRANSFORMER_23, "stock"), 2) as group, torch.inference_mode():
        assert "must match" in group.together("ask", arguments_for("2.3", frames=2, height=2, width=2))


def test_the_stock_plan_holds_where_they_are_interleaved() -> None:
    """So it is the split form that it fails for, and not how it is put to use here."""
    even = arguments_for("2.3", frames=2, height=2, width=2) | {"isolate_modalities": True}
    recipe = partial(Asked, TRANSFORMER_23 | {"rope_type": "interleaved"}, "stock")
    with group_of(recipe, 2) as group, torch.inference_mode():
        found = apart(group.together("ask", even), cast(Any, recipe(CPU).ask(even)))
    assert found < TOLERANCE


def test_heads_that_ranks_cannot_divide_are_refused() -> None:
    transformer = Asked(TRANSFORMER_23, "ours", CPU)
    with pytest.raises(ConfigError, match="4 attention heads cannot be shared by 3 ranks; take 1, 2, 4"):
        transformer.share(dist.ProcessGroup(0, 3))  # pyright: ignore[reportCallIssue]  # the stub knows the longer form alone


def test_fewer_tokens_than_ranks_are_refused_and_the_next_call_is_answered() -> None:
    few, enough = (arguments_for("2.3", frames=1, height=1, width=width) for width in (1, 3))
    with group_of(partial(Asked, TRANSFORMER_23, "ours"), 2) as group, torch.inference_mode():
        with pytest.raises(InvalidRequestError, match="1 tokens are too few for 2 ranks"):
            group.together("ask", few)
        assert not isinstance(group.together("ask", enough), str)


PROMPT = {"prompt": "a cat walks over wet stones", "seed": 7}
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"pipeline": "ti2vid_one_stage", "num_frames": 9, "height": 64, "width": 96},
    # 27 tokens, of which the first frame's have a noise level of their own.
    "image": {"pipeline": "ti2vid_one_stage", "num_frames": 17, "height": 96, "width": 96, "image": {"picture": Picture(picture(96, 96))}},
    "keyframes": {
        "num_frames": 17,
        "height": 64,
        "width": 128,
        "keyframes": [
            {"picture": Picture(picture(64, 64)), "frame": 0},
            {"picture": Picture(picture(64, 64, 1)), "frame": 9, "strength": 0.7},
        ],
    },
}


def family_of(folder_of: FolderOf, version: str) -> LTX2Family:
    folder = folder_of(version)
    return cast(
        LTX2Family, make_family("ltx2", weights=str(folder), loras=str(folder.parent / "loras"), variant="dev", precision="float32")
    )


def call_of(step: str, request: dict[str, Any], stages: LocalStages, family: LTX2Family) -> tuple[Any, Any]:
    """With what feeds it, and its answer in one process."""
    results: dict[str, Any] = {}
    for each in parse_request(request, family=family).plan(family).steps:
        call = fill(each.call, results)
        results[each.name] = stages[each.call.stage].run(call, Silent())
        if each.name == step:
            return call, results[step]
    raise KeyError(step)


def latents_apart(one: Latents, other: Latents) -> float:
    assert one.audio is not None and other.audio is not None
    return apart((one.video, one.audio), (other.video, other.audio))


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_a_guided_draft_is_the_same_by_two_ranks(version: str, folder_of: FolderOf) -> None:
    """Four passes a step; guidance makes differences of single forwards larger. Measured after two: at most 1.6e-6 apart."""
    family = family_of(folder_of, version)
    stages = LocalStages(family, device=CPU)
    denoiser = make_stage("denoiser", family, device=CPU, ranks=Ranks(2, RankProcess, 60.0))
    found: dict[str, float] = {}
    for name, request in REQUESTS.items():
        call, alone = call_of("draft", PROMPT | {"negative_prompt": "blurry", "num_inference_steps": 2} | request, stages, family)
        found[name] = latents_apart(denoiser.run(call, Silent()), alone)
    denoiser.close()
    assert max(found.values()) < TOLERANCE, found


def test_a_sound_alone_is_the_same_by_two_ranks_that_have_a_token_of_pictures_each(folder_of: FolderOf) -> None:
    family = family_of(folder_of, "2.3")
    request = PROMPT | {"pipeline": "text_to_audio", "num_frames": 12, "num_inference_steps": 2}
    call, alone = call_of("draft", request, LocalStages(family, device=CPU), family)
    denoiser = make_stage("denoiser", family, device=CPU, ranks=Ranks(2, RankProcess, 60.0))
    shared = denoiser.run(call, Silent())
    denoiser.close()
    assert apart((shared.audio,), (alone.audio,)) < TOLERANCE


@pytest.mark.parametrize(("step", "stage"), [("draft", "denoiser"), ("refined", "refiner")])
def test_every_rank_wears_the_lora(step: str, stage: str, folder_of: FolderOf) -> None:
    """The denoiser's as long as a call names it, the refiner's for good."""
    family = family_of(folder_of, "2.3")
    request = PROMPT | {"pipeline": "distilled", "num_frames": 9, "height": 64, "width": 64}
    call, alone = call_of(step, request, LocalStages(family, device=CPU), family)
    shared = make_stage(stage, family, device=CPU, ranks=Ranks(2, RankProcess, 60.0))
    found = latents_apart(shared.run(call, Silent()), alone)
    shared.close()
    assert found < TOLERANCE


def test_a_stage_that_works_alone_says_so(folder_of: FolderOf) -> None:
    with pytest.raises(ConfigError, match="upsampler of ltx2 works in one process; leave placement_group_bundles out"):
        make_stage("upsampler", family_of(folder_of, "2.3"), device=CPU, ranks=Ranks(2, RankProcess))
