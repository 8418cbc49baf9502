"""Events arrive signed so that OpenAI's client believes them; what does not arrive is tried again, and nobody waits for a slow receiver."""

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import insert, select, update

from deployments import webhooks
from deployments.jobs.clock import Clock
from deployments.jobs.database import Database, open_database
from deployments.jobs.outbox import Outbox
from deployments.jobs.tables import outbox as table
from deployments.outgoing import Outgoing, OutgoingPolicy
from deployments.webhooks import Deliverer, sign, webhook_secret
from tests.deployments.listening import Reply, Server, saying, serving, silence

PEPPER = b"p" * 32
CLIENT = OpenAI(api_key="none", base_url="http://127.0.0.1:9")
LOCAL = Outgoing(OutgoingPolicy(enabled=True, allow_networks=("127.0.0.0/8",)))


def secret_of(tenant: str) -> str:
    return webhook_secret(PEPPER, tenant)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield database
    database.close()


def announce(database: Database, url: str, *, id: str = "evt_1", tenant: str = "ann") -> None:
    payload = {"type": "video.completed", "id": id, "data": {"id": "video_1", "prompt": "eine rote Kugel, größer – 球"}}
    row = {"id": id, "tenant": tenant, "url": url, "payload": payload, "created_at": 1.0, "tries": 0, "due_at": 1.0, "error": None}
    with database.write() as connection:
        connection.execute(insert(table), row)


def waiting(database: Database) -> dict[str, tuple[int, bool, str | None]]:
    """What is left in the outbox: its tries, whether it is given up, and its last error."""
    with database.read() as connection:
        rows = connection.execute(select(table.c.id, table.c.tries, table.c.due_at, table.c.error)).all()
    return {row.id: (row.tries, row.due_at is None, row.error) for row in rows}


def make_due(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(table).where(table.c.due_at.is_not(None)).values(due_at=Clock() - 1))


def delivered(database: Database, reply: Reply, *, outgoing: Outgoing = LOCAL) -> Server:
    """One round, with one event and one receiver."""

    async def run() -> Server:
        async with serving(reply) as server:
            announce(database, f"http://127.0.0.1:{server.port}/hook")
            deliverer = Deliverer(Outbox(database), outgoing, secret_of)
            assert await deliverer.deliver_due() == 1
            await deliverer.settle()
            return server

    return asyncio.run(run())


def signed(payload: bytes, *, timestamp: int | None = None, secret: str | None = None) -> dict[str, str]:
    return sign(payload, id="evt_1", timestamp=timestamp or int(time.time()), secret=secret or secret_of("ann"))


def test_a_secret_is_a_tenants_own_and_always_the_same() -> None:
    secret = secret_of("ann")
    assert secret.startswith("whsec_") and len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert secret == secret_of("ann")
    assert len({secret, secret_of("ben"), secret_of(""), webhook_secret(b"q" * 32, "ann")}) == 4


def test_a_signature_is_that_of_the_standards_own_example() -> None:
    secret, payload = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    headers = sign(payload, id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, secret=secret)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


PAYLOAD = '{"a": "größer"}'.encode()
FORGED: dict[str, Callable[[], tuple[bytes, dict[str, str]]]] = {
    "another payload": lambda: (PAYLOAD + b" ", signed(PAYLOAD)),
    "another id": lambda: (PAYLOAD, signed(PAYLOAD) | {"webhook-id": "evt_2"}),
    "another tenant's": lambda: (PAYLOAD, signed(PAYLOAD, secret=secret_of("ben"))),
    "another time": lambda: (PAYLOAD, signed(PAYLOAD) | {"webhook-timestamp": str(int(time.time()) + 1)}),
    "long ago": lambda: (PAYLOAD, signed(PAYLOAD, timestamp=int(time.time()) - 400)),
}


def test_openais_client_believes_what_is_signed() -> None:
    CLIENT.webhooks.verify_signature(PAYLOAD, signed(PAYLOAD), secret=secret_of("ann"))


@pytest.mark.parametrize("what", FORGED)
def test_openais_client_believes_nothing_else(what: str) -> None:
    payload, headers = FORGED[what]()
    with pytest.raises(InvalidWebhookSignatureError):
        CLIENT.webhooks.verify_signature(payload, headers, secret=secret_of("ann"))


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_an_event_arrives_signed_and_is_forgotten(database: Database, status: str) -> None:
    server = delivered(database, saying(status=status))
    CLIENT.webhooks.verify_signature(server.bodies[0], server.headers(), secret=secret_of("ann"))
    assert server.heads[0].startswith("POST /hook HTTP/1.1\r\n")
    assert server.headers()["webhook-id"] == "evt_1"
    assert server.headers()["content-type"] == "application/json"
    assert "größer – 球".encode() in server.bodies[0]
    assert waiting(database) == {}


@pytest.mark.parametrize("status", ["500 Broken", "429 Slow Down", "404 Not Here", "302 Elsewhere"])
def test_what_is_not_taken_is_tried_again(database: Database, status: str) -> None:
    delivered(database, saying(status=status))
    assert waiting(database) == {"evt_1": (1, False, f"answered {status[:3]}")}


def test_a_second_try_has_the_same_id_and_a_new_time(database: Database) -> None:
    async def run() -> tuple[dict[str, str], dict[str, str]]:
        statuses = iter(["500 Broken", "200 OK"])

        async def reply(writer: asyncio.StreamWriter) -> None:
            await saying(status=next(statuses))(writer)

        async with serving(reply) as server:
            announce(database, f"http://127.0.0.1:{server.port}/")
            deliverer = Deliverer(Outbox(database), LOCAL, secret_of)
            for pause in (1.05, 0):  # the time is in whole seconds
                make_due(database)
                await deliverer.deliver_due()
                await deliverer.settle()
                await asyncio.sleep(pause)
            assert await deliverer.deliver_due() == 0
            return server.headers(0), server.headers(1)

    first, second = asyncio.run(run())
    assert waiting(database) == {}
    assert first["webhook-id"] == second["webhook-id"]
    assert int(first["webhook-timestamp"]) < int(second["webhook-timestamp"])


def test_a_receiver_that_is_gone_is_not_asked_again(database: Database) -> None:
    delivered(database, saying(status="410 Gone"))
    assert waiting(database) == {"evt_1": (1, True, "answered 410")}


def test_a_receiver_that_never_takes_it_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "GIVE_UP_AFTER", 3)

    async def run() -> int:
        async with serving(saying(status="500 Broken")) as server:
            announce(database, f"http://127.0.0.1:{server.port}/")
            deliverer = Deliverer(Outbox(database), LOCAL, secret_of)
            for _ in range(5):
                make_due(database)
                await deliverer.deliver_due()
                await deliverer.settle()
            return len(server.heads)

    assert asyncio.run(run()) == 3
    assert waiting(database) == {"evt_1": (3, True, "answered 500")}


def rounds(database: Database, outgoing: Outgoing, *, location: str = "") -> int:
    """Five of them, with one event and a receiver that redirects; how often it was asked."""

    async def run() -> int:
        async with serving(saying(status="302 Found", headers=f"location: {location}\r\n")) as server:
            announce(database, f"http://127.0.0.1:{server.port}/")
            deliverer = Deliverer(Outbox(database), outgoing, secret_of)
            for _ in range(5):
                make_due(database)
                await deliverer.deliver_due()
                await deliverer.settle()
            return len(server.heads)

    return asyncio.run(run())


@pytest.mark.parametrize("location", ["mailto:x@y", "https:foo", "data:x", "https://xn--/"])
def test_a_receiver_that_redirects_to_what_is_no_url_is_given_up(
    location: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "GIVE_UP_AFTER", 3)
    assert rounds(database, LOCAL, location=location) == 3
    ((tries, given_up, error),) = waiting(database).values()
    assert (tries, given_up) == (3, True) and error is not None and "cannot be asked" in error


def test_what_nobody_foresaw_is_a_try_too_and_told_to_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "GIVE_UP_AFTER", 3)

    class Broken(Outgoing):
        async def post(self, *_: object, **__: object) -> int:
            raise RuntimeError("/srv/secret")

    rounds(database, Broken(OutgoingPolicy(enabled=True)))
    assert waiting(database) == {"evt_1": (3, True, "could not be posted (RuntimeError); the server's log says why")}
    assert [record.getMessage() for record in caplog.records] == ["webhook evt_1 could not be posted"] * 3 and "/srv/secret" in caplog.text


def test_a_private_address_is_not_asked_though_it_is_in_the_outbox(database: Database) -> None:
    server = delivered(database, saying(), outgoing=Outgoing(OutgoingPolicy(enabled=True)))
    assert server.heads == []
    ((tries, given_up, error),) = waiting(database).values()
    assert (tries, given_up) == (1, False)
    assert error is not None and "no public address" in error


def test_a_slow_receiver_keeps_nobody_waiting(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 1.5)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            slow, quick = [await stack.enter_async_context(serving(reply)) for reply in (silence, saying())]
            for number in range(8):
                announce(database, f"http://127.0.0.1:{slow.port}/", id=f"slow_{number}", tenant="ben")
            deliverer = Deliverer(Outbox(database), LOCAL, secret_of)
            assert await deliverer.deliver_due() == 8
            announce(database, f"http://127.0.0.1:{quick.port}/")
            assert await deliverer.deliver_due() == 1
            while not quick.heads:
                await asyncio.sleep(0.01)
            assert {(tries, error) for event, (tries, _, error) in waiting(database).items() if event != "evt_1"} == {(1, None)}
            await deliverer.settle()
            assert len(slow.heads) == 8

    asyncio.run(run())
    assert waiting(database) == {f"slow_{number}": (1, False, "did not answer within 1.5 s") for number in range(8)}


def test_no_more_are_under_way_than_there_is_room_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "AT_ONCE", 3)
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.5)

    async def run() -> list[int]:
        async with serving(silence) as server:
            for number in range(5):
                announce(database, f"http://127.0.0.1:{server.port}/", id=f"evt_{number}")
            deliverer = Deliverer(Outbox(database), LOCAL, secret_of)
            begun = [await deliverer.deliver_due(), await deliverer.deliver_due()]
            await deliverer.settle()
            begun.append(await deliverer.deliver_due())
            await deliverer.settle()
            return begun

    assert asyncio.run(run()) == [3, 0, 2]


def test_two_deliverers_do_not_deliver_the_same_event(database: Database) -> None:
    async def run() -> int:
        async with serving(saying()) as server:
            for number in range(20):
                announce(database, f"http://127.0.0.1:{server.port}/", id=f"evt_{number}")
            pair = [Deliverer(Outbox(database), LOCAL, secret_of) for _ in range(2)]
            await asyncio.gather(*(one.deliver_due() for one in pair))
            await asyncio.gather(*(one.settle() for one in pair))
            return len(server.heads)

    assert asyncio.run(run()) == 20
    assert waiting(database) == {}


def test_a_database_that_is_away_is_no_end_of_the_deliveries(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither when what is due is read, nor when a delivery is noted: it is tried again when its lease has ended."""
    outbox = Outbox(database)

    def away(*_: object) -> None:
        raise OSError("disk I/O error")

    async def run() -> list[int]:
        async with serving(saying()) as server:
            announce(database, f"http://127.0.0.1:{server.port}/")
            deliverer, begun = Deliverer(outbox, LOCAL, secret_of), []
            for broken in ("claim_deliveries", "delivered", None):
                with monkeypatch.context() as patch:
                    if broken is not None:
                        patch.setattr(outbox, broken, away)
                    make_due(database)
                    begun.append(await deliverer.deliver_due())
                    await deliverer.settle()
            return begun

    assert asyncio.run(run()) == [0, 1, 1]
    assert waiting(database) == {}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "webhooks that are due cannot be read",
        "a webhook's delivery cannot be noted; it will be tried again",
    ]
