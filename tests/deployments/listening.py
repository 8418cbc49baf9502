"""a port of this machine -> whoever asks there, answered byte by byte as a test likes, and what was asked"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


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
