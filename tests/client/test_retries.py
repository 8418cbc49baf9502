"""requests that fail at first -> asked again, the same way, for as long as that may help"""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from aiprod_client import AiprodClientError, Retries
from aiprod_client.server import free_port
from tests.client.either import Connect
from tests.client.stand_in import VIDEO, Answer, Received, StandIn, json_answer, problem, running_stand_in

CREATE = "POST /v1/videos"
MODELS = "GET /v1/models"
BUSY = problem(503, "not now", code="unavailable")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(server: StandIn, connect: Connect, status: int) -> None:
    passing = problem(status, "not now", code="some_code")
    server.answers[MODELS] = [passing, passing, json_answer({"data": []})]
    with connect(server.url) as client:
        assert client.models() == []
    assert server.calls == [MODELS] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_what_will_not_pass_is_asked_once(server: StandIn, connect: Connect, status: int) -> None:
    server.answers[MODELS] = problem(status, "no", code="some_code")
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="no"):
        client.models()
    assert server.calls == [MODELS]


def test_a_server_that_says_so_is_not_asked_again(server: StandIn, connect: Connect) -> None:
    server.answers[MODELS] = problem(503, "never", code="unavailable", headers={"x-should-retry": "false"})
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="never"):
        client.models()
    assert server.calls == [MODELS]


def test_the_last_refusal_is_the_one_that_is_raised(server: StandIn, connect: Connect) -> None:
    server.answers[MODELS] = [BUSY, BUSY, BUSY, problem(500, "out of order", code="internal")]
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="out of order"):
        client.models()
    assert server.calls == [MODELS] * 4


def test_without_retries_a_request_is_sent_once(server: StandIn, connect: Connect) -> None:
    server.answers[MODELS] = BUSY
    with connect(server.url, retries=Retries(most=0)) as client, pytest.raises(AiprodClientError, match="not now"):
        client.models()
    assert server.calls == [MODELS]


def test_a_creation_is_repeated_under_its_key_and_makes_one_video(server: StandIn, connect: Connect) -> None:
    def make_and_break(received: Received) -> Answer:
        """The video is made, and the answer lost."""
        server.answers.pop(CREATE)
        return Answer(server.create(received, "").body, cut=10)

    server.answers[CREATE] = make_and_break
    with connect(server.url) as client:
        job = client.create("a red ball")
    assert server.calls == [CREATE] * 2
    assert len({received.headers["idempotency-key"] for received in server.received}) == 1
    assert list(server.videos) == [job.id]


def test_a_form_is_repeated_to_the_byte(server: StandIn, connect: Connect) -> None:
    """A server that hashes bodies would take another boundary for another request."""
    edits = "POST /v1/videos/edits"
    server.answers[edits] = [BUSY, json_answer({"id": "video_1", "status": "queued"})]
    with connect(server.url) as client:
        client.edit("a blue ball", VIDEO)
    first, second = server.received
    assert first.body == second.body
    assert first.headers["content-type"] == second.headers["content-type"]


def test_the_server_says_when_to_come_back(server: StandIn, connect: Connect) -> None:
    server.answers[MODELS] = [problem(429, "later", code="rate_limited", headers={"retry-after": "0.3"}), json_answer({"data": []})]
    started = time.perf_counter()
    with connect(server.url) as client:
        client.models()
    assert time.perf_counter() - started >= 0.3


def test_who_asks_for_more_than_two_minutes_is_not_waited_for(server: StandIn, connect: Connect) -> None:
    server.answers[MODELS] = problem(429, "tomorrow", code="quota_exceeded", headers={"retry-after": "3600"})
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="tomorrow"):
        client.models()
    assert server.calls == [MODELS]


def refused(**headers: str) -> httpx.Response:
    return httpx.Response(429, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_delays_double_up_to_a_longest_and_are_never_quite_alike() -> None:
    retries = Retries(most=2000, first_delay=0.5, longest_delay=8.0)
    for failures, most in enumerate([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]):
        delays = {retries.delay(failures) for _ in range(20)}
        assert all(delay is not None and 0.75 * most <= delay <= most for delay in delays)
        assert len(delays) > 1
    assert (retries.delay(2000) or 0) <= 8.0
    assert retries.delay(2001) is None


def test_a_date_says_when_to_come_back_too() -> None:
    retries = Retries()
    soon = retries.delay(1, refused(retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)))
    assert soon is not None and 50 < soon <= 60
    assert retries.delay(1, refused(retry_after="Thu, 01 Jan 1970 00:00:00 GMT")) == 0
    assert retries.delay(1, refused(retry_after="Fri, 01 Jan 2100 00:00:00 GMT")) is None


@pytest.mark.parametrize("advice", ["", "soon", "12:30", "-", "Thu, 99 Jan"])
def test_advice_that_says_nothing_is_passed_over(advice: str) -> None:
    delay = Retries(first_delay=0.5).delay(1, refused(retry_after=advice))
    assert delay is not None and 0.375 <= delay <= 0.5


def test_readiness_is_a_question_of_now(server: StandIn, connect: Connect) -> None:
    server.answers["GET /readyz"] = BUSY
    with connect(server.url) as client:
        assert not client.ready()
    assert server.calls == ["GET /readyz"]


def test_a_server_that_comes_up_late_is_reached(connect: Connect) -> None:
    port, done = free_port(), threading.Event()

    def come_late() -> None:
        time.sleep(0.3)
        with running_stand_in(port):
            done.wait(10)

    late = threading.Thread(target=come_late)
    late.start()
    try:
        with connect(f"http://127.0.0.1:{port}", retries=Retries(most=20, first_delay=0.1, longest_delay=0.1)) as client:
            assert client.create("a red ball").prompt == "a red ball"
    finally:
        done.set()
        late.join()
