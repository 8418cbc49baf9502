"""video.proto -> the code that is checked in, and the methods that answer"""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.api.grpc import RPCS, GrpcFace, method_of
from tests.deployments.grpc_face.serving import Ingress

ROOT = Path(__file__).parents[3]
PROTO = Path("deployments/api/proto/aiprod/v1/video.proto")
GENERATED = ("video_pb2.py", "video_pb2.pyi", "video_pb2_grpc.py")


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools, of the extra dev")
def test_the_generated_code_is_what_protoc_makes_of_the_proto(tmp_path: Path) -> None:
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, str(PROTO)], cwd=ROOT, check=True)
    for name in GENERATED:
        fresh = (tmp_path / PROTO.parent / name).read_text(encoding="utf-8")
        assert (ROOT / PROTO.parent / name).read_text(encoding="utf-8") == fresh, f"{name} is not of this video.proto; generate it anew"


@pytest.mark.parametrize("rpc", list(RPCS), ids=lambda rpc: rpc.name)
def test_each_rpc_has_a_method_and_the_ingress_passes_it_on(rpc: object) -> None:
    name, streams = rpc.name, rpc.server_streaming  # type: ignore[attr-defined]
    own, passed_on = getattr(GrpcFace, method_of(name)), getattr(Ingress, name)
    assert inspect.isasyncgenfunction(own) == inspect.isasyncgenfunction(passed_on) == streams
    assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(passed_on) == (not streams)
    assert "grpc_context" in inspect.signature(passed_on).parameters


def test_no_method_answers_an_rpc_that_is_not_there() -> None:
    methods = {name for name, _ in inspect.getmembers(GrpcFace, inspect.isfunction) if not name.startswith("_")}
    assert methods == {method_of(rpc.name) for rpc in RPCS}
