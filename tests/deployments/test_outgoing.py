"""What a client's URL may make the server do: one bounded request to a public address, however the URL is spelt and whatever answers."""

import asyncio
import datetime
import gzip
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from aiprod_components.errors import ConfigError, InvalidRequestError
from deployments.outgoing import Outgoing, OutgoingPolicy, Resolver, resolve
from tests.deployments.listening import Reply, Server, saying, serving, silence

PUBLIC = OutgoingPolicy(enabled=True)
LOCAL = OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8", "::1/128"), timeout_s=5)
BRIEF = OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8",), timeout_s=0.5)


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


def local_fetch(reply: Reply, *, policy: OutgoingPolicy = LOCAL, max_bytes: int = 1000) -> bytes:
    async def run() -> bytes:
        async with serving(reply) as server:
            outgoing = Outgoing(policy)
            return await outgoing.fetch(f"http://127.0.0.1:{server.port}/a.png", field="image_url", max_bytes=max_bytes)

    return asyncio.run(run())


def test_nothing_is_asked_unless_an_operator_turns_it_on() -> None:
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.215.14"]

    assert "outgoing.enabled: true" in refusal("https://example.com/a.png", policy=OutgoingPolicy(), resolver=resolver)
    assert asked == []


def test_a_file_is_fetched_with_its_path_query_and_host() -> None:
    async def run() -> None:
        async with serving(saying(b"picture")) as server:
            url = f"http://pictures.test:{server.port}/a/b.png?token=1&x=%2F#part"
            assert await Outgoing(LOCAL, resolver=leading_to("127.0.0.1")).fetch(url, field="image_url", max_bytes=7) == b"picture"
        (head,) = server.heads
        assert head.startswith("GET /a/b.png?token=1&x=%2F HTTP/1.1\r\n")
        assert f"\r\nhost: pictures.test:{server.port}\r\n" in head
        assert "\r\naccept-encoding: identity\r\n" in head

    asyncio.run(run())


def test_the_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert local_fetch(saying(b"direct")) == b"direct"


PRIVATE = {
    "loopback": "127.0.0.1",
    "another loopback": "127.255.0.9",
    "this host": "0.0.0.0",
    "this network": "0.1.2.3",
    "ten": "10.0.0.1",
    "hundred seventy two": "172.16.0.1",
    "hundred ninety two": "192.168.1.1",
    "carrier NAT": "100.64.0.1",
    "another cloud's metadata": "100.100.100.200",
    "metadata": "169.254.169.254",
    "Azure's host": "168.63.129.16",
    "relay": "192.88.99.1",
    "documentation": "203.0.113.5",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "global multicast": "233.252.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "IPv6 link": "fe80::1",
    "IPv6 link with a zone": "fe80::1%lo",
    "IPv6 site": "fec0::1",
    "IPv6 unique local": "fd00:ec2::254",
    "IPv6 multicast": "ff0e::1",
    "IPv6 documentation": "2001:db8::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:169.254.169.254",
    "compatible loopback": "::127.0.0.1",
    "translated": "::ffff:0:127.0.0.1",
    "NAT64 to loopback": "64:ff9b::127.0.0.1",
    "NAT64 to metadata": "64:ff9b::a9fe:a9fe",
    "NAT64 of the network's own": "64:ff9b:1::808:808",
    "6to4 to ten": "2002:a00:1::1",
    "6to4 to anywhere": "2002:808:808::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
}


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_a_host_with_a_private_address_is_refused_without_telling_which(address: str) -> None:
    told = refusal("https://example.com/a.png", resolver=leading_to(address))
    assert "'example.com', which has no public address" in told
    assert address not in told


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:93.184.215.14", "64:ff9b::93.184.215.14"])
def test_a_public_address_may_be_asked(address: str) -> None:
    Outgoing(PUBLIC).check(f"https://[{address}]/a.png" if ":" in address else f"https://{address}/a.png", field="image_url")


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    assert "no public address" in refusal("https://example.com", resolver=leading_to("93.184.215.14", "10.0.0.1"))


def test_what_is_not_there_is_refused_in_the_words_for_what_is_private() -> None:
    def resolver(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    missing = refusal("https://db.internal", resolver=resolver)
    assert (
        missing == refusal("https://db.internal", resolver=leading_to("10.0.0.1")) == refusal("https://db.internal", resolver=leading_to())
    )


SPELT = ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "[::1]", "[::ffff:7f00:1]", "[::]"]


@pytest.mark.parametrize("host", SPELT)
def test_this_machine_is_refused_however_it_is_spelt(host: str) -> None:
    async def run() -> Server:
        async with serving(saying(b"secret")) as server:
            with pytest.raises(InvalidRequestError, match=r"no public address|must name a host|no URL"):
                await Outgoing(PUBLIC).fetch(f"http://{host}:{server.port}/", field="image_url", max_bytes=100)
        return server

    assert asyncio.run(run()).heads == []


BAD_URLS = {
    "file:///etc/passwd": "must begin with https://",
    "ftp://example.com/a": "must begin with https://",
    "gopher://example.com/a": "must begin with https://",
    "//example.com/a": "must begin with https://",
    "example.com/a": "must begin with https://",
    "data:image/png;base64,AAAA": "must begin with https://",
    "": "must begin with https://",
    "https://": "must name a host",
    "https:///a": "must name a host",
    "https://user:word@example.com/": "without user and password",
    "https://example.com@127.0.0.1/": "without user and password",
    "https://example.com\\@127.0.0.1/": "without user and password",
    "https://exa mple.com/": "must name a host",
    "https://example.com%00.evil.test/": "must name a host",
    "https://example.com%0d%0aX-Injected:1/": "must name a host|is no URL",
    "https://example.com\r\nx: y/": "is no URL",
    "https://example.com:22/": "must have port",
    "https://example.com:25/": "must have port",
    "https://example.com:0/": "must have port",
    "https://example.com:99999/": "must have port",
    "https://[::1/": "is no URL|must name a host",
    "https://１２７.０.０.１/": "is no URL",
    "https://ⓛocalhost/": "is no URL",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_is_not_plainly_one_is_refused_before_its_name_is_looked_up(url: str) -> None:
    def resolver(host: str, port: int) -> Sequence[str]:
        pytest.fail(f"{host} was looked up")

    for ask in (lambda: fetched(url, resolver=resolver), lambda: Outgoing(PUBLIC).check(url, field="webhook_url")):
        with pytest.raises(InvalidRequestError, match=BAD_URLS[url]):
            ask()


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:7f00:1]"])
def test_an_address_that_is_private_is_refused_before_anything_is_asked(host: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"webhook_url names .*, which has no public address"):
        Outgoing(PUBLIC).check(f"https://{host}/hook", field="webhook_url")
    Outgoing(LOCAL).check("https://127.0.0.1/hook", field="webhook_url")


def test_a_name_is_not_looked_up_before_it_is_asked() -> None:
    def resolver(host: str, port: int) -> Sequence[str]:
        pytest.fail(f"{host} was looked up")

    Outgoing(PUBLIC, resolver=resolver).check("https://example.com/hook", field="webhook_url")
    with pytest.raises(InvalidRequestError, match=r"outgoing\.enabled: true"):
        Outgoing(OutgoingPolicy()).check("https://example.com/hook", field="webhook_url")


def test_a_host_in_another_script_is_looked_up_and_asked_as_name_servers_spell_it() -> None:
    looked_up: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    async def run() -> None:
        async with serving(saying(b"ja")) as server:
            url = f"http://bücher.test:{server.port}/"
            assert await Outgoing(LOCAL, resolver=resolver).fetch(url, field="image_url", max_bytes=100) == b"ja"
        assert f"host: xn--bcher-kva.test:{server.port}\r\n" in server.heads[0]

    asyncio.run(run())
    assert looked_up == ["xn--bcher-kva.test"]


def test_a_name_that_changes_its_address_is_asked_at_the_one_that_was_checked() -> None:
    """DNS rebinding: the name is looked up once, and the second answer, where another server waits, is never had."""
    answers = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])

    async def run() -> tuple[bytes, Server, Server]:
        async with (
            serving(saying(b"checked"), host="127.0.0.2") as checked,
            serving(saying(b"secret"), host="127.0.0.1", port=checked.port) as other,
        ):
            outgoing = Outgoing(OutgoingPolicy(enabled=True, allow_networks=("127.0.0.2/32",)), resolver=lambda host, port: next(answers))
            data = await outgoing.fetch(f"http://rebind.test:{checked.port}/", field="image_url", max_bytes=100)
            with pytest.raises(InvalidRequestError, match="no public address"):
                await outgoing.fetch(f"http://rebind.test:{checked.port}/", field="image_url", max_bytes=100)
        return data, checked, other

    data, checked, other = asyncio.run(run())
    assert (data, len(checked.heads), other.heads) == (b"checked", 1, [])
    assert len(list(answers)) == 1  # one look-up for each of two requests


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "300 Choices", "304 Same"])
def test_a_redirect_into_this_network_is_not_followed(status: str) -> None:
    async def run() -> Server:
        async with serving(saying(b"secret"), host="127.0.0.3") as inner:
            redirect = saying(b"", status=status, headers=f"location: http://127.0.0.3:{inner.port}/\r\n")
            async with serving(redirect) as server:
                with pytest.raises(InvalidRequestError, match="redirects, which is not followed"):
                    await Outgoing(LOCAL).fetch(f"http://127.0.0.1:{server.port}/", field="image_url", max_bytes=100)
        return inner

    assert asyncio.run(run()).heads == []


def test_a_status_but_200_is_told() -> None:
    with pytest.raises(InvalidRequestError, match="image_url answers 403; it must answer 200"):
        local_fetch(saying(b"no", status="403 Forbidden"))


def test_more_bytes_than_allowed_are_refused_by_what_is_announced() -> None:
    async def announce(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match="more than 1000 bytes"):
        local_fetch(announce)
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("framing", ["", "transfer-encoding: chunked\r\n"])
def test_an_endless_body_is_cut_off(framing: str) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n".encode())
        while True:
            part = b"x" * 10_000
            writer.write(b"2710\r\n" + part + b"\r\n" if framing else part)
            await writer.drain()
            sent += len(part)

    with pytest.raises(InvalidRequestError, match="more than 1000 bytes"):
        local_fetch(endless)
    assert sent < 20_000_000


def test_the_policy_bounds_what_a_caller_may_ask() -> None:
    policy = OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8",), max_bytes=10)
    assert local_fetch(saying(b"x" * 10), policy=policy) == b"x" * 10
    with pytest.raises(InvalidRequestError, match="more than 10 bytes"):
        local_fetch(saying(b"x" * 11), policy=policy)


def test_a_compressed_answer_is_refused_rather_than_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 900_000)
    with pytest.raises(InvalidRequestError, match="only identity was asked for"):
        local_fetch(saying(bomb, headers="content-encoding: gzip\r\n"), max_bytes=len(bomb))


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("reply", [drip, drip_headers, silence])
def test_a_host_that_drips_is_given_up_after_the_time_for_all_of_it(reply: Reply) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match=r"did not answer in full within 0\.5 s"):
        local_fetch(reply, policy=BRIEF)
    assert 0.4 < time.monotonic() - started < 3


def test_a_name_server_that_does_not_answer_is_given_up_too() -> None:
    def resolver(host: str, port: int) -> Sequence[str]:
        time.sleep(1.0)
        return ["127.0.0.1"]

    assert "within 0.5 s" in refusal("http://slow.test/", policy=BRIEF, resolver=resolver)


@pytest.mark.parametrize(
    "reply", [saying(b"", status="OK"), saying(b"short", headers="content-length: 50\r\n")], ids=["no HTTP", "two lengths"]
)
def test_what_is_no_http_is_told_as_the_fields_fault(reply: Reply) -> None:
    with pytest.raises(InvalidRequestError, match=r"image_url: '127\.0\.0\.1' cannot be asked \(RemoteProtocolError\)"):
        local_fetch(reply)


def test_a_closed_port_is_told_as_the_fields_fault_without_its_address() -> None:
    async def free_port() -> int:
        async with serving(silence) as server:
            return server.port

    told = refusal(f"http://closed.test:{asyncio.run(free_port())}/", policy=LOCAL, resolver=leading_to("127.0.0.1", "127.0.0.2"))
    assert "'closed.test' cannot be asked (ConnectError)" in told
    assert "127.0.0" not in told


def test_the_next_address_is_tried_where_the_first_does_not_listen() -> None:
    async def run() -> bytes:
        async with serving(saying(b"second"), host="127.0.0.2") as server:
            outgoing = Outgoing(LOCAL, resolver=leading_to("127.0.0.1", "127.0.0.2"))
            return await outgoing.fetch(f"http://two.test:{server.port}/", field="image_url", max_bytes=100)

    assert asyncio.run(run()) == b"second"


def test_the_next_address_is_tried_where_the_first_swallows_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.outgoing.CONNECT_SECONDS", 0.3)

    async def run() -> bytes:
        async with serving(saying(b"second"), host="127.0.0.2") as server:
            with socket.create_server(("127.0.0.1", server.port), backlog=0), ExitStack() as stack:
                for _ in range(3):  # more than its queue holds: what comes after hears nothing
                    waiting = stack.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(("127.0.0.1", server.port))
                outgoing = Outgoing(LOCAL, resolver=leading_to("127.0.0.1", "127.0.0.2"))
                return await outgoing.fetch(f"http://two.test:{server.port}/", field="image_url", max_bytes=100)

    started = time.monotonic()
    assert asyncio.run(run()) == b"second"
    assert 0.25 < time.monotonic() - started < 3


def test_an_operator_may_deny_public_networks_of_its_own() -> None:
    policy = OutgoingPolicy(enabled=True, deny_networks=("93.184.0.0/16",))
    assert "no public address" in refusal("https://example.com", policy=policy, resolver=leading_to("93.184.215.14"))
    assert "no public address" in refusal("https://example.com", policy=policy, resolver=leading_to("::ffff:93.184.215.14"))


@pytest.mark.parametrize("network", ["10.0.0.1/8", "everything", "10.0.0.0/33"])
def test_a_network_that_is_none_is_refused_in_the_config(network: str) -> None:
    with pytest.raises(ValidationError, match="allow_networks"):
        OutgoingPolicy(allow_networks=(network,))


def test_a_post_carries_its_body_and_headers_and_answers_the_status() -> None:
    async def run() -> tuple[list[int], str]:
        async with serving(saying(b"x" * 100_000, status="202 Accepted")) as server, serving(saying(b"", status="307 On")) as redirect:
            outgoing, headers = Outgoing(LOCAL), {"webhook-id": "msg_1", "content-type": "application/json"}
            urls = [f"http://127.0.0.1:{at.port}/hook" for at in (server, redirect)]
            return [await outgoing.post(url, body=b'{"a": 1}', headers=headers) for url in urls], server.heads[0]

    statuses, head = asyncio.run(run())
    assert statuses == [202, 307]
    assert head.startswith("POST /hook HTTP/1.1\r\n")
    assert {"webhook-id: msg_1", "content-type: application/json", "content-length: 8"} <= set(head.lower().splitlines())


def test_a_post_goes_through_the_same_guard() -> None:
    with pytest.raises(InvalidRequestError, match=r"webhook_url names .* which has no public address") as caught:
        asyncio.run(Outgoing(PUBLIC).post("http://127.0.0.1:8265/api/jobs/", body=b"{}", headers={}))
    assert caught.value.field == "webhook_url"


@dataclass(frozen=True)
class Tls:
    server: ssl.SSLContext
    authorities: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for pictures.test, its own authority."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.test")]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.test")]), critical=False)
    certificate, chain = folder / "certificate.pem", builder.sign(key, hashes.SHA256())
    certificate.write_bytes(chain.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "key.pem")
    return Tls(context, certificate)


def tls_fetch(tls: Tls, host: str, *, trusted: bool) -> bytes:
    async def run() -> bytes:
        async with serving(saying(b"sealed"), tls=tls.server) as server:
            policy = LOCAL.model_copy(update={"authorities": str(tls.authorities) if trusted else None})
            outgoing = Outgoing(policy, resolver=leading_to("127.0.0.1"))
            return await outgoing.fetch(f"https://{host}:{server.port}/", field="image_url", max_bytes=100)

    return asyncio.run(run())


def test_a_certificate_must_be_for_the_name_that_was_asked_and_of_a_known_authority(tls: Tls) -> None:
    assert tls_fetch(tls, "pictures.test", trusted=True) == b"sealed"
    for host, trusted in (("other.test", True), ("127.0.0.1", True), ("pictures.test", False)):
        with pytest.raises(InvalidRequestError, match=r"cannot be asked \(ConnectError\)"):
            tls_fetch(tls, host, trusted=trusted)


def test_authorities_that_cannot_be_read_are_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("empty.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=rf"outgoing\.authorities: .*{file}"):
            Outgoing(OutgoingPolicy(authorities=str(tmp_path / file)))
