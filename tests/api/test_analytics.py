"""`GET /v1/analytics`: who sees whose figures, over which days, and what is not understood"""

from typing import Any

import pytest

from deployments.jobs.records import Claim
from tests.api.conftest import Desk, MakeDesk

RECEIPT = {
    "step": "draft", "stage": "denoiser", "replica": "a", "queued_seconds": 0.5, "run_seconds": 90.0, "gpus": 2,
    "cache_hit": False, "attempt": 1,
}  # fmt: skip


def make(desk: Desk, key: str | None = None) -> None:
    desk.client(key).post("/v1/videos", json={"prompt": "a red ball"})
    assert desk.storage.jobs.finish(Claim.of(desk.claim()), {"files": {"video": ["video/mp4", 3]}}, [RECEIPT], 3600)


def told(desk: Desk, key: str | None = None, **query: Any) -> dict[str, Any]:
    answer = desk.client(key).get("/v1/analytics", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_figures_are_told_in_money_where_a_gpu_hour_has_a_price(make_desk: MakeDesk) -> None:
    desk = make_desk(analytics={"gpu_hour_price": 4.0})
    make(desk)
    found = told(desk, days=2)
    assert [day["completed"] for day in found["days"]] == [0, 1] and found["until"] == found["days"][-1]["day"]
    (usage,) = found["usage"]
    assert (usage["tenant"], usage["family"], usage["jobs"]) == ("local", "miniature", 1)
    assert (usage["replica_seconds"], usage["gpu_seconds"], usage["money"]) == (90.0, 180.0, 0.2) and usage["cost"] > 0
    ran = {"count": 1, "p50_seconds": 90.0, "p95_seconds": 90.0}
    assert found["families"][0]["stages"] == [{"stage": "denoiser", "ran": ran, "cache_hits": 0}]
    assert found["failures"] == [] and len(told(desk)["days"]) == 30


def test_an_admin_sees_all_tenants_and_others_their_own(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    ada, bob = desk.key("ada"), desk.key("bob")
    make(desk, ada)
    make(desk, bob)
    seen = {key: told(desk, key) for key in (ada, bob, desk.key("ops", "read", "admin"))}
    assert [found["tenant"] for found in seen.values()] == ["ada", "bob", None]
    assert [[usage["tenant"] for usage in found["usage"]] for found in seen.values()] == [["ada"], ["bob"], ["ada", "bob"]]
    assert [found["days"][-1]["completed"] for found in seen.values()] == [1, 1, 2]


def test_a_key_that_does_not_read_is_refused(make_desk: MakeDesk) -> None:
    desk = make_desk(keys=True)
    answers = [desk.client(key).get("/v1/analytics") for key in (None, desk.key("ada", "write"), desk.key("ops", "admin"))]
    assert [answer.status_code for answer in answers] == [401, 403, 403]
    assert "this needs read" in answers[2].json()["detail"]


@pytest.mark.parametrize("days", ["0", "401", "-1", "x", ""])
def test_days_that_cannot_be_looked_back_on_are_told(desk: Desk, days: str) -> None:
    answer = desk.client().get("/v1/analytics", params={"days": days})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "days") and f"got {days!r}" in error["message"], error
    assert "401" not in days or "less than or equal to 400" in error["message"]
