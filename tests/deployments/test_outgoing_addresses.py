"""Where a client's URL leads: to public addresses, however they are spelt and whatever a name server says."""

import asyncio
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from aiprod_components.errors import InvalidRequestError
from deployments.outgoing import Outgoing, OutgoingPolicy
from tests.deployments.listening import LOCAL, PUBLIC, Server, fetched, leading_to, refusal, saying, serving

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


def test_an_operator_may_deny_public_networks_of_its_own() -> None:
    policy = OutgoingPolicy(enabled=True, deny_networks=("93.184.0.0/16",))
    assert "no public address" in refusal("https://example.com", policy=policy, resolver=leading_to("93.184.215.14"))
    assert "no public address" in refusal("https://example.com", policy=policy, resolver=leading_to("::ffff:93.184.215.14"))


@pytest.mark.parametrize("network", ["10.0.0.1/8", "everything", "10.0.0.0/33"])
def test_a_network_that_is_none_is_refused_in_the_config(network: str) -> None:
    with pytest.raises(ValidationError, match="allow_networks"):
        OutgoingPolicy(allow_networks=(network,))
