"""a URL that a client named -> resolved once -> every address checked -> one bounded request to a checked address

A client's URL must not become a way into the network that this server stands in. So the name is resolved here and nowhere else, the
connection goes to an address that was checked (a second answer of the name server cannot change it), and redirects are not followed.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import SOCK_STREAM, getaddrinfo

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator

from aiprod_components.errors import ConfigError, InvalidRequestError
from aiprod_components.pipelines import shown

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT, LAST_PORT = 1024, 65535  # below it, but for the web's own two, are services that a request must not be smuggled into
HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
RESOLVER_THREADS = 8  # of their own: a slow name server must not use up the threads that everything else runs in
MOST_ADDRESSES = 4  # of one host that are tried: a name server's long list is no order to knock everywhere
CONNECT_SECONDS = 5.0  # for each of them

NAT64, GLOBAL_UNICAST = IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")
# Counted as global, and yet ways to a neighbour: the host agent of Azure, relays and tunnels from IPv6 to any IPv4 address.
NEVER: tuple[Network, ...] = tuple(ip_network(network) for network in ("168.63.129.16/32", "192.88.99.0/24", "2002::/16", "2001::/32"))


class OutgoingPolicy(BaseModel):
    """Whether and where requests may make the server fetch or post.

    `allow_networks` may be reached although they are private, `deny_networks` may not although they are public (CIDR). `timeout_s` is for
    all of an exchange, from the name to the last byte. `authorities` is a PEM file of those whose certificates count (absent: certifi's).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    allow_networks: tuple[str, ...] = ()
    deny_networks: tuple[str, ...] = ()
    max_bytes: int = Field(default=100_000_000, ge=1)
    timeout_s: float = Field(default=30.0, gt=0)
    authorities: str | None = None

    @field_validator("allow_networks", "deny_networks")
    @classmethod
    def _networks(cls, named: tuple[str, ...]) -> tuple[str, ...]:
        for network in named:
            ip_network(network)
        return named


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, in the system's order. Raises OSError."""
    return [str(found[4][0]) for found in getaddrinfo(host, port, type=SOCK_STREAM)]


@dataclass(frozen=True)
class _Target:
    """A URL that may be asked, and the checked addresses of its host."""

    url: httpx.URL
    addresses: tuple[Address, ...]

    def request(self, address: Address, method: str, *, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        """Goes to `address`, and is addressed to the host: in its header, and in what its certificate must say."""
        return httpx.Request(
            method,
            self.url.copy_with(host=str(address)),
            headers={"user-agent": "aiprod", **headers, "accept-encoding": "identity", "host": self.url.netloc.decode("ascii")},
            content=body,
            extensions={"sni_hostname": _host(self.url), "timeout": {"connect": CONNECT_SECONDS}},
        )


class Outgoing:
    """Fetches from and posts to URLs of clients, within the policy."""

    def __init__(self, policy: OutgoingPolicy, *, resolver: Resolver = resolve) -> None:
        self._policy, self._resolver = policy, resolver
        self._allowed = [ip_network(network) for network in policy.allow_networks]
        self._denied = [*NEVER, *(ip_network(network) for network in policy.deny_networks)]
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolve")
        # From the environment come neither proxies nor certificates: a proxy would resolve the name again.
        self._tls = _tls(policy.authorities)

    def check(self, url: str, *, field: str) -> None:
        """Raises InvalidRequestError for a URL that will never be asked. A name is looked up when it is, for it may move until then."""
        host = _host(self._parsed(url, field=field))
        if _is_address(host) and not self._reachable(ip_address(host)):
            raise _no_public_address(host, field=field)

    async def fetch(self, url: str, *, field: str, max_bytes: int) -> bytes:
        """What the URL answers. Raises InvalidRequestError, naming the field and the way out."""
        most = min(max_bytes, self._policy.max_bytes)
        async with self._in_time(field):
            target = await self._target(url, field=field)
            async with self._answer(target, "GET", field=field) as answer:
                _check_answer(answer, field=field)
                return await _read(answer, field=field, most=most)

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], field: str = "webhook_url") -> int:
        """The status that the URL answers; the answer's body is not read. Raises InvalidRequestError like `fetch`."""
        async with self._in_time(field):
            target = await self._target(url, field=field)
            async with self._answer(target, "POST", field=field, headers=headers, body=body) as answer:
                return answer.status_code

    @asynccontextmanager
    async def _in_time(self, field: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                yield
        except TimeoutError as error:
            raise InvalidRequestError(
                f"{field} did not answer in full within {self._policy.timeout_s:g} s; name a faster host", field=field
            ) from error

    def _parsed(self, url: str, *, field: str) -> httpx.URL:
        if not self._policy.enabled:
            raise InvalidRequestError(
                f"{field} names a URL, and this server asks none; leave it out or send the data itself, or have the operator set "
                "outgoing.enabled: true in the api's args (serve_config.yaml)",
                field=field,
            )
        return _parse(url, field=field)

    async def _target(self, url: str, *, field: str) -> _Target:
        parsed = self._parsed(url, field=field)
        host, port = _host(parsed), _port(parsed)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._resolver, host, port)
        except (OSError, UnicodeError) as error:
            raise _no_public_address(host, field=field) from error
        addresses = tuple(dict.fromkeys(ip_address(address) for address in found))
        if not addresses or not all(self._reachable(address) for address in addresses):
            raise _no_public_address(host, field=field)
        return _Target(parsed, addresses[:MOST_ADDRESSES])

    def _reachable(self, address: Address) -> bool:
        meant = _unwrapped(address)
        if any(address in network or meant in network for network in self._denied):
            return False
        return _is_public(meant) or any(meant in network for network in self._allowed)

    @asynccontextmanager
    async def _answer(
        self, target: _Target, method: str, *, field: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> AsyncIterator[httpx.Response]:
        """From the first address that can be connected to."""
        # A client for one exchange: a kept connection would be to the address of one host and the certificate of another.
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as client:
            try:
                answer = await self._send(client, [target.request(at, method, headers=headers or {}, body=body) for at in target.addresses])
                try:
                    yield answer
                finally:
                    await answer.aclose()
            # httpx reads where a redirect leads though it is not followed: what is no URL there is an InvalidURL or a ValueError of idna's.
            # A broken TLS record is an OSError that httpx does not make its own.
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                raise InvalidRequestError(
                    f"{field}: {shown(_host(target.url))} cannot be asked ({type(error).__name__}); see that it answers at that address",
                    field=field,
                ) from error

    async def _send(self, client: httpx.AsyncClient, requests: Sequence[httpx.Request]) -> httpx.Response:
        *others, last = requests
        for request in others:
            try:
                return await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await client.send(last, stream=True)


@cache
def _tls(authorities: str | None) -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context(trust_env=False) if authorities is None else ssl.create_default_context(cafile=authorities)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"outgoing.authorities: {authorities} is no file of PEM certificates that can be read ({error})") from error


def _no_public_address(host: str, *, field: str) -> InvalidRequestError:
    """In one wording for a name that is not there and one that is private: neither tells what is in this network."""
    return InvalidRequestError(
        f"{field} names {shown(host)}, which has no public address; name a host that the whole internet can reach", field=field
    )


def _parse(url: str, *, field: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"{field} is no URL ({error}), got {shown(url)}", field=field) from error
    if parsed.scheme not in PORTS:
        raise InvalidRequestError(f"{field} must begin with https:// or http://, got {shown(url)}", field=field)
    if parsed.userinfo:
        raise InvalidRequestError(f"{field} must be without user and password; put a token into its path or query", field=field)
    host = _host(parsed)
    if not HOST_NAME.fullmatch(host) and not _is_address(host):
        raise InvalidRequestError(f"{field} must name a host, got {shown(host)}", field=field)
    if (port := _port(parsed)) not in PORTS.values() and not FIRST_FREE_PORT <= port <= LAST_PORT:
        raise InvalidRequestError(f"{field} must have port 80, 443 or {FIRST_FREE_PORT} to {LAST_PORT}, got {port}", field=field)
    return parsed


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host(url: httpx.URL) -> str:
    """As name servers and certificates spell it: `URL.host` would be the Unicode form."""
    return url.raw_host.decode("ascii")


def _port(url: httpx.URL) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for on its way out of this network, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_public(address: Address) -> bool:
    # `is_global` alone counts multicast, and what IPv6 has outside its one range of global addresses.
    return address.is_global and not address.is_multicast and (address.version == 4 or address in GLOBAL_UNICAST)


def _check_answer(answer: httpx.Response, *, field: str) -> None:
    if 300 <= answer.status_code < 400:
        raise InvalidRequestError(
            f"{field} answers {answer.status_code} and redirects, which is not followed; name the address it leads to", field=field
        )
    if answer.status_code != 200:
        raise InvalidRequestError(f"{field} answers {answer.status_code}; it must answer 200 to anyone who asks", field=field)
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise InvalidRequestError(
            f"{field} answers in {shown(encoding)}, and only identity was asked for; serve the file as it is", field=field
        )


async def _read(answer: httpx.Response, *, field: str, most: int) -> bytes:
    too_large = InvalidRequestError(f"{field} has more than {most} bytes, the most that is fetched; name a smaller file", field=field)
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    data = bytearray()
    async for chunk in answer.aiter_raw():
        data += chunk
        if len(data) > most:
            raise too_large
    return bytes(data)
