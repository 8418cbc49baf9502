"""video.proto's descriptor -> any message of it; a message -> what a server answers, and whether it may

Knows nothing of who serves: `check` asks any channel.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import strategies as st

from aiprod_components.pipelines import PIPELINES
from deployments.api.grpc import RPCS

METHODS = {rpc.name: rpc for rpc in RPCS}
# What an honest client would say under a name, so that some messages get far; the rest say anything at all.
HONEST: dict[str, tuple[Any, ...]] = {
    "prompt": ("a red ball", "ein roter Ball 🎈"),
    "negative_prompt": ("rain",),
    "model": ("miniature", "miniature/ti2vid_one_stage"),
    "pipeline": tuple(PIPELINES),
    "size": ("128x128", "64x64"),
    "seconds": (0.6, 1.0),
    "num_frames": (9, 17),
    "fps": (16.0, 8.0),
    "num_inference_steps": (2, 8),
    "guidance_scale": (1.0, 3.0),
    "seed": (0, 2**63 - 1),
    "priority": (-100, 0, 100),
    "limit": (1, 20, 100),
    "order": ("asc", "desc"),
    "variant": ("video", "thumbnail"),
    "offset": (0, 262144, 639999),
    "length": (0, 1, 300000),
}
MEDIA = ("input_reference", "image_strength", "keyframes", "reference_video", "video")
SETTINGS: tuple[str, ...] = (*MEDIA, "loras", "next_prompts", "double_frame_rate", "seed")
INNER = ("name", "scale", "frame", "file", "image_url", "video_url", "id", "strength")
ODD = ("", "\0", "\u202e%s%n", "😀" * 300, "1e999", "null", "data:image/png;base64,", "data:video/mp4;base64,AAAA")
HUGE = (0.0, -0.0, 2.0**53, 2.0**63, -(2.0**63), 1.7e308, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(ODD)
NAMES = st.sampled_from([*HONEST, *SETTINGS, *INNER]) | TEXTS
DOUBLES = st.floats() | st.sampled_from(HUGE) | st.integers(-2, 200).map(float)
BYTES = st.binary(max_size=60) | st.sampled_from([b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypmp42"])
REFUSALS = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"}  # a valid message deserves another
DEEPEST = 18  # protobuf itself reads no more than a hundred messages in each other, and a level here is five


@dataclass(frozen=True)
class Answer:
    code: str
    details: str
    messages: tuple[Any, ...]


def call(channel: grpc.Channel, rpc: str, message: Any = None, *, metadata: Sequence[tuple[str, str]] = ()) -> Answer:
    """The answer to a message, an empty one unless it is given."""
    method = METHODS[rpc]
    asked, answered = message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    send: Any = make(f"/{method.containing_service.full_name}/{rpc}", asked.SerializeToString, answered.FromString)
    messages: list[Any] = []
    try:
        answer = send(asked() if message is None else message, metadata=[("application", "api"), *metadata], timeout=30)
        messages.extend(answer if method.server_streaming else [answer])
    except grpc.RpcError as error:
        said: Any = error
        return Answer(said.code().name, said.details(), tuple(messages))
    return Answer("OK", "", tuple(messages))


def check(channel: grpc.Channel, rpc: str, message: Any, *, metadata: Sequence[tuple[str, str]] = ()) -> None:
    """Whatever is asked, the answer is a video or a reason."""
    answer = call(channel, rpc, message, metadata=metadata)
    assert answer.code not in REFUSALS, answer
    assert "Traceback" not in answer.details
    if answer.code != "OK":
        said = json.loads(answer.details)["error"]
        assert said["message"] and said["code"] not in ("internal", None), answer


def requests_of(rpc: str, *, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    """Any message that an RPC takes; where an id belongs, often one of these."""
    return _messages(METHODS[rpc].input_type, ids=ids)


def _messages(descriptor: Descriptor, *, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    kind = message_factory.GetMessageClass(descriptor)
    fields = {field.name: _mostly_honest(field, ids=ids) for field in descriptor.fields}
    return st.fixed_dictionaries(fields).map(lambda given: kind(**{name: value for name, value in given.items() if value is not None}))


def _mostly_honest(field: FieldDescriptor, *, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    """None is to leave it out."""
    honest = tuple(ids) if field.name in ("id", "video_id", "after") else HONEST.get(field.name, ())
    likely = {"prompt": "hhhhhhhhh-?", "id": "hhhhh-?", "video_id": "hhhhh-?"}.get(field.name, "hh------?" if honest else "-----?")
    kinds = {"-": st.none(), "h": st.sampled_from(honest or (None,)), "?": _field(field, ids=ids)}
    return st.sampled_from(likely).flatmap(kinds.__getitem__)


def _field(field: FieldDescriptor, *, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        parts = field.message_type.fields_by_name
        return st.dictionaries(NAMES, _field(parts["value"], ids=ids), max_size=4)
    if field.message_type is not None and field.message_type.full_name == Struct.DESCRIPTOR.full_name:
        return _structs()
    if field.message_type is not None:
        return _messages(field.message_type, ids=ids)
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    return {
        FieldDescriptor.TYPE_DOUBLE: DOUBLES,
        FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 200),
        FieldDescriptor.TYPE_BYTES: BYTES,
        FieldDescriptor.TYPE_BOOL: st.booleans(),
    }[field.type]


def _structs() -> st.SearchStrategy[Struct]:
    leaves = st.just(Value()) | st.none().map(_value) | (st.booleans() | DOUBLES | TEXTS).map(_value)
    values = st.recursive(leaves, lambda inner: _lists(inner) | _records(inner), max_leaves=12) | st.integers(1, DEEPEST).map(_nested)
    known = st.dictionaries(st.sampled_from(SETTINGS), values, min_size=1, max_size=2)
    return (known | st.dictionaries(NAMES, values, max_size=5)).map(lambda fields: Struct(fields={**fields}))


def _lists(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return st.lists(inner, max_size=4).map(lambda values: Value(list_value=ListValue(values=values)))


def _records(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return st.dictionaries(NAMES, inner, max_size=4).map(lambda fields: Value(struct_value=Struct(fields=fields)))


def _value(plain: bool | float | str | None) -> Value:
    if plain is None:
        return Value(null_value=0)  # type: ignore[arg-type]
    if isinstance(plain, bool):
        return Value(bool_value=plain)
    return Value(string_value=plain) if isinstance(plain, str) else Value(number_value=plain)


def _nested(depth: int) -> Value:
    value = Value(number_value=1)
    for _ in range(depth):
        value = Value(list_value=ListValue(values=[Value(struct_value=Struct(fields={"inner": value}))]))
    return value
