"""a port of this machine -> whoever asks there, answered byte by byte as a test likes; and how tests ask through the guard"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from aiprod_components.errors import InvalidRequestError
from deployments.outgoing import Outgoing, OutgoingPolicy, Resolver, resolve

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
PUBLIC = OutgoingPolicy(enabled=True)
LOCAL = OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8", "::1/128"), timeout_s=5)


@dataclass
class Server:
    """A real one; `heads` and `bodies` are those of the requests it saw."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def headers(self, request: int = 0) -> dict[str, str]:
        """With names in small letters."""
        pairs = (line.split(": ", 1) for line in self.heads[request].splitlines()[1:] if line)
        return {name.lower(): value for name, value in pairs}


@asynccontextmanager
async def serving(reply: Reply, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    seen = Server()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            seen.heads.append(head)
            seen.bodies.append(body)
            await reply(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked hung up, as they should
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, ssl=tls)
    async with server:
        seen.port = server.sockets[0].getsockname()[1]
        yield seen


def saying(body: bytes = b"", *, status: str = "200 OK", headers: str = "") -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)

    return reply


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def leading_to(*addresses: str) -> Resolver:
    """Every name has these addresses."""
    return lambda host, port: addresses


def fetched(url: str, *, policy: OutgoingPolicy = PUBLIC, resolver: Resolver = resolve, max_bytes: int = 1000) -> bytes:
    return asyncio.run(Outgoing(policy, resolver=resolver).fetch(url, field="image_url", max_bytes=max_bytes))


def refusal(url: str, *, policy: OutgoingPolicy = PUBLIC, resolver: Resolver = resolve) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        fetched(url, policy=policy, resolver=resolver)
    assert caught.value.field == "image_url"
    assert "image_url" in caught.value.message
    return caught.value.message
