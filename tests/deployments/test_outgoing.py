"""What a client's URL makes the server do is one bounded request, whatever answers."""

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

from aiprod_components.errors import ConfigError, InvalidRequestError
from deployments.outgoing import Outgoing, OutgoingPolicy
from tests.deployments.listening import LOCAL, PUBLIC, Reply, Server, leading_to, refusal, saying, serving, silence

BRIEF = OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8",), timeout_s=0.5)


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


# What httpx reads as a URL, and cannot.
NOWHERE = ["mailto:x@y", "https:foo", "data:x", "javascript:alert(1)", "https://xn--/"]


@pytest.mark.parametrize("location", NOWHERE)
def test_a_redirect_to_what_is_no_url_is_a_refusal_like_others(location: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"image_url: '127\.0\.0\.1' cannot be asked") as told:
        local_fetch(saying(status="302 Found", headers=f"location: {location}\r\n"))
    assert told.value.field == "image_url"


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
