"""a video service -> its gRPC face on a port of this machine, behind a stand-in for Ray Serve's proxy"""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from ray.serve._private.grpc_util import _truncate_message
from ray.serve.grpc_util import RayServegRPCContext

from deployments.api.grpc import RPCS, GrpcFace, add_grpc_methods
from deployments.api.proto.aiprod.v1.video_pb2_grpc import add_VideoServiceServicer_to_server


@add_grpc_methods
class Ingress:
    def __init__(self, grpc_face: GrpcFace) -> None:
        self.grpc_face = grpc_face


@contextmanager
def serving(face: GrpcFace) -> Iterator[str]:
    """The address of a server that has a thread and an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server, port = asyncio.run_coroutine_threadsafe(_start(Ingress(face)), loop).result(30)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(ingress: Ingress) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    add_VideoServiceServicer_to_server(_StandInProxy(ingress), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


class _StandInProxy:
    """Does with the ingress what Serve's proxy and replica do: everything is pickled on its way, the context's code and details count
    where an exception was raised, details are cut, and an exception without a code is told as it is."""

    def __init__(self, ingress: Ingress) -> None:
        for rpc in RPCS:
            setattr(self, rpc.name, (_stream if rpc.server_streaming else _unary)(getattr(ingress, rpc.name)))


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Message, context: Any) -> Message:
        ours = _travelled(RayServegRPCContext(context))
        try:
            return await method(_travelled(request), grpc_context=ours)
        except Exception as error:
            await _end(context, ours, error)
            raise

    return answer


def _stream(method: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Message, context: Any) -> AsyncIterator[Message]:
        ours = _travelled(RayServegRPCContext(context))
        try:
            async for message in method(_travelled(request), grpc_context=ours):
                yield message
        except Exception as error:  # noqa: BLE001 as Serve does
            await _end(context, ours, error)

    return answer


def _travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


async def _end(context: Any, ours: RayServegRPCContext, error: Exception) -> None:
    code: Any = ours.code()
    assert type(_travelled(error)).__module__ == "builtins", "the proxy would have to import it"
    await context.abort(code or grpc.StatusCode.INTERNAL, _truncate_message(ours.details() if code else repr(error)))
