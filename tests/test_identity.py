"""A step is known by what it depends on, and by nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import pytest

from aiprod_components import calls
from aiprod_components.calls import (
    DecodeAudio,
    DecodeSound,
    DecodeVideo,
    Denoise,
    DenoiseSound,
    EncodeFootage,
    EncodePicture,
    EncodePrompt,
    EncodeSound,
    EncodeTail,
    EnhancePrompt,
    Guidance,
    Guide,
    LoraUse,
    Pin,
    Projection,
    ReadSound,
    Refine,
    Sampling,
    SoundPin,
    Upsample,
)
from aiprod_components.plan import Call, Plan, PlanBuilder, Ref, Step, Work, identify, private
from aiprod_components.values import MEDIA, Footage, FootageShape, LatentGrid, Picture, Sound, VideoShape

GRID = LatentGrid(time=4, space=16, channels=64)
VIDEO = VideoShape(33, 128, 64, 16.0)
GUIDANCE = Guidance(3.0, 0.5, 1.0, (1, 2), Projection(0.25, 1.5, -0.75), (0.1, 0.9), 2.5)
SAMPLING = Sampling((1.0, 0.5, 0.0), GUIDANCE, 7, "heun", GUIDANCE)
GIVEN: dict[str, Any] = {
    "pins": (Pin(Ref("tail"), 4, 0.5, (1, 3)),),
    "guides": (Guide(Ref("picture"), VIDEO, 8, 0.75),),
    "loras": (LoraUse("canny", 1.5), LoraUse("distilled", 1.0)),
    "sound_pins": (SoundPin(Ref("tail"), 4, (1, 3), 0.5),),
}
# One of every kind, with something in every field; between them they refer to every step of `SOURCES`.
SAMPLES: tuple[Call[Any], ...] = (
    EnhancePrompt("a ball", ("a cube", Ref("enhanced"))),
    EncodePrompt("a ball", "blur"),
    EncodePicture(Picture(b"picture"), 64, 32, antialias=False),
    EncodeFootage(Footage(b"footage"), 24, VIDEO, "canny"),
    EncodeSound(Sound(b"sound"), 0.5, VIDEO),
    ReadSound(Footage(b"footage"), VIDEO),
    EncodeTail(Ref("tail"), VIDEO, 3),
    Denoise(Ref("prompt"), VIDEO, SAMPLING, **GIVEN),
    DenoiseSound(Ref("prompt"), VIDEO, SAMPLING, GIVEN["loras"]),
    Upsample(Ref("tail"), VIDEO, "upsampler"),
    Refine(Ref("prompt"), Ref("tail"), VIDEO, SAMPLING, **GIVEN),
    DecodeAudio((Ref("tail"), Ref("picture")), VIDEO, (0, 9)),
    DecodeSound(Ref("tail"), VIDEO, "wav"),
    DecodeVideo((Ref("tail"), Ref("picture")), VIDEO, 9, "mp4", Ref("tail")),
)
SOURCES: tuple[str, ...] = ("enhanced", "prompt", "picture", "tail", "other")


@dataclass(frozen=True)
class Note(Call[str]):
    stage: ClassVar[str] = "desk"
    content: Any

    def work(self, grid: LatentGrid) -> Work:
        return Work(1, 1, 1)


@dataclass(frozen=True)
class Memo(Note):
    """The same field under another name of a class."""


def plan_of(*steps: Step) -> Plan:
    builder = PlanBuilder(family="paper", pipeline="any", grid=GRID)
    for step in steps:
        builder.add(step.name, step.call)
    return builder.build()


def identity_of(call: Call[Any], *, names: tuple[str, ...] = SOURCES) -> str:
    """The call's, after steps of these names that differ from each other."""
    return identify(plan_of(*(Step(name, Note(index)) for index, name in enumerate(names)), Step("asked", call)), fingerprint="f")["asked"]


def changed(value: Any) -> Iterator[Any]:
    """Everything that differs from `value` in one place."""
    if isinstance(value, Ref):
        yield Ref("other")
    elif isinstance(value, MEDIA):
        yield type(value)(value.data + b"!")
    elif isinstance(value, tuple):
        yield (*value, None)
        yield from ((*value[:place], another, *value[place + 1 :]) for place, item in enumerate(value) for another in changed(item))
        yield from [value[:-1]] if value else []
    elif is_dataclass(value):
        yield from (replace(value, **{field.name: another}) for field in fields(value) for another in changed(getattr(value, field.name)))  # type: ignore[type-var]
    elif isinstance(value, str):
        yield from (value + " ", value[:-1])
    else:
        assert isinstance(value, int | float), value
        yield value + 1 if isinstance(value, int) else value + 2**-40


def test_every_kind_of_call_has_a_sample_with_something_in_every_field():
    kinds = {kind for kind in vars(calls).values() if isinstance(kind, type) and issubclass(kind, Call) and kind is not Call}
    assert {type(sample) for sample in SAMPLES} == kinds
    assert all(getattr(sample, field.name) not in (None, ()) for sample in SAMPLES for field in fields(sample))  # type: ignore[arg-type]


@pytest.mark.parametrize("call", SAMPLES, ids=lambda call: type(call).__name__)
def test_any_change_of_a_call_is_another_identity(call: Call[Any]):
    others = list(changed(call))
    identities = {identity_of(other) for other in [call, *others]}
    assert len(others) > 2 and len(identities) == 1 + len(others)


@pytest.mark.parametrize("call", SAMPLES, ids=lambda call: type(call).__name__)
def test_equal_calls_have_one_identity_whatever_their_steps_are_called(call: Call[Any]):
    renamed = tuple(f"step {name}" for name in SOURCES)
    names: dict[str, str] = dict(zip(SOURCES, renamed, strict=True))
    assert identity_of(as_called(call, names), names=renamed) == identity_of(call)


def as_called(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, Ref):
        return Ref(names[value.step])
    if isinstance(value, tuple):
        return tuple(as_called(item, names) for item in value)
    if is_dataclass(value) and not isinstance(value, (type, *MEDIA)):
        return replace(value, **{field.name: as_called(getattr(value, field.name), names) for field in fields(value)})
    return value


ALIKE = (
    1,
    1.0,
    "1",
    True,
    None,
    "None",
    "",
    (),
    (1,),
    ((1,),),
    (1, 1),
    ("ab", "c"),
    ("a", "bc"),
    0.1 + 0.2,
    0.3,
    Picture(b"1"),
    Footage(b"1"),
)


@pytest.mark.parametrize(("one", "other"), list(combinations(ALIKE, 2)), ids=repr)
def test_what_only_looks_alike_is_told_apart(one: Any, other: Any):
    assert identity_of(Note(one)) != identity_of(Note(other))


def test_a_class_is_known_by_its_name_and_a_medium_by_its_content():
    assert identity_of(Note("a")) != identity_of(Memo("a"))
    checked = Footage(b"1", FootageShape(8, 8, 1.0, 16.0))
    assert identity_of(Note(checked)) == identity_of(Note(Footage(b"1")))


def test_zero_has_no_sign():
    assert identity_of(Note(-0.0)) == identity_of(Note(0.0)) != identity_of(Note(0))


def test_what_has_no_content_of_its_own_is_refused():
    for content in ([1], {"a": 1}, {1}, b"1", object()):
        with pytest.raises(TypeError, match=f"cannot hold a {type(content).__name__}"):
            identity_of(Note(content))


def test_an_identity_reaches_as_far_as_what_feeds_a_step():
    def identities(prompt: str) -> dict[str, str]:
        plan = plan_of(Step("a", Note(prompt)), Step("b", Note(Ref("a"))), Step("c", Note("apart")))
        return identify(plan, fingerprint="f")

    one, other = identities("one"), identities("other")
    assert one["a"] != other["a"] and one["b"] != other["b"] and one["c"] == other["c"]


def test_other_weights_are_other_identities():
    plan = plan_of(Step("a", Note("same")))
    assert identify(plan, fingerprint="f") != identify(plan, fingerprint="g")


def test_what_somebody_sent_makes_private_what_it_feeds():
    plan = plan_of(
        Step("text", Note("words")),
        Step("seen", Note(("deep", (Picture(b"p"),)))),
        Step("beside", Note(Ref("text"))),
        Step("after", Note((Ref("text"), Ref("seen")))),
        Step("long after", Note(Ref("after"))),
        Step("filmed", Note(Footage(b"f"))),
    )
    assert private(plan) == {"text": False, "seen": True, "beside": False, "after": True, "long after": True, "filmed": True}
