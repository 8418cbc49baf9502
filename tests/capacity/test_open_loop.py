"""arrivals -> played against a stand-in for the server -> a row of each, as calibration reads them"""

import asyncio
import time
from typing import Any

import pytest

from benchmarks.open_loop import play
from deployments.capacity.traffic import Traffic
from tests.client.stand_in import STAGES, Answer, Received, StandIn, problem, running_stand_in, stream


def traffic(**more: Any) -> Traffic:
    each = {"name": "drafts", "request": {"model": "miniature"}, "arrival": {"kind": "at", "seconds": [0.0, 0.1, 0.2]}, **more}
    return Traffic.model_validate({"name": "test", "seconds": 1, "classes": [each]})


@pytest.fixture
def server() -> Any:
    with running_stand_in() as stand_in:
        yield stand_in


def silence(received: Received) -> Answer:
    """Nothing happens for a while."""
    time.sleep(1.0)
    return stream(ends=False)


def test_every_arrival_is_asked_for_and_told_of_with_its_receipts(server: StandIn) -> None:
    result = asyncio.run(play(server.url, traffic(), first_number=40))
    assert (result["arrivals"], result["completed"], result["failed"], result["cancelled"]) == (3, 3, 0, 0)
    assert [row["at"] for row in result["rows"]] == [0.0, 0.1, 0.2]
    assert all(0 < row["latency"] < 30 and len(row["stages"]) == len(STAGES) for row in result["rows"])
    asked = [each.body for each in server.received if each.call == "POST /v1/videos"]
    assert sorted(body["seed"] for body in asked) == [40, 41, 42] and len({body["prompt"] for body in asked}) == 3


def test_what_fails_is_a_row_as_well(server: StandIn) -> None:
    server.answers["POST /v1/videos"] = problem(400, "not today", code="invalid_request")
    result = asyncio.run(play(server.url, traffic()))
    assert result["failed"] == 3 and result["throughput_per_minute"] == 0
    assert all("not today" in row["error"] for row in result["rows"])


def test_who_changes_their_mind_is_cancelled(server: StandIn) -> None:
    for number in (1, 2, 3):
        server.answers[f"GET /v1/videos/video_{number:032x}/events"] = silence
    result = asyncio.run(play(server.url, traffic(cancels=1.0, cancel_after=0.3)))
    assert result["cancelled"] == 3
    assert all(0.3 <= row["latency"] < 30 for row in result["rows"])
