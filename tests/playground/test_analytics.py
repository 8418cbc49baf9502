"""figures, known to the digit -> what the page makes of them: tables, bars, an empty span, a key that is asked for"""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from deployments.jobs.analytics import Analytics, Day, Failure, FamilyTimes, Spread, StageTimes, Usage
from tests.playground.conftest import Open
from tests.playground.stand_in import StandIn, running_stand_in
from tests.playground.test_playground import tab_to, violations

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
KEY = "ap_0123456789abcdef"
UNTIL = date(2026, 9, 21)
COUNTS = {0: (6, 3, 1), 2: (4, 0, 0)}  # by days ago
STAGES = (StageTimes("denoiser", Spread(40, 20.0, 95.0), 2), StageTimes("text_encoder", Spread(10, 0.25, 0.5), 30))
FOUND = Analytics(
    since=UNTIL - timedelta(days=6),
    until=UNTIL,
    tenant=None,
    gpu_hour_price=2.5,
    days=tuple(Day(UNTIL - timedelta(days=ago), *COUNTS.get(ago, (0, 0, 0))) for ago in range(6, -1, -1)),
    families=(FamilyTimes("ltx2", Spread(13, 1.0, 30.0), Spread(10, 60.0, 130.0), STAGES),),
    usage=(
        Usage("acme", "ltx2", 9, 7300.0, 14_600.0, 81.5, 10.1389),
        Usage("a-tenant-with-a-long-name-of-its-own", "ltx2", 5, 60.0, 120.0, 2.0, 0.0833),
    ),
    failures=(Failure("ltx2", "worker_lost", 2), Failure("ltx2", "not_finite", 1)),
)


def look(open_page: Open, server: StandIn, **window: Any) -> Any:
    page = open_page(server.url, **window)
    page.get_by_role("link", name="Analytics").click()
    return page


def texts(page: Any, region: str) -> list[list[str]]:
    """The rows of a table, as they are read."""
    rows = page.get_by_role("region", name=region).locator("tbody tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td:not(.bars)").all()] for row in rows]


def test_figures_are_tables_and_bars(open_page: Open) -> None:
    with running_stand_in(analytics=FOUND) as server:
        page = look(open_page, server)
        expect(page.locator(".legend")).to_have_text("10 completed3 failed1 cancelled")
        heights = [float(bar.get_attribute("height")) for bar in page.locator(".days .part").all()]
        assert heights == pytest.approx([40.0, 60.0, 30.0, 10.0])
        assert texts(page, "ltx2") == [
            ["Waiting for its turn", "1 s", "30 s", "13", ""],
            ["Text encoder", "250 ms", "500 ms", "10", "30"],
            ["Denoiser", "20 s", "1 min 35 s", "40", "2"],
            ["Whole job, when completed", "60 s", "2 min 10 s", "10", ""],
        ]
        assert texts(page, "By tenant and model")[0] == ["acme", "ltx2", "9", "2.0 h", "4.1 h", "81.50", "10.14"]
        assert texts(page, "By reason and model") == [["worker_lost", "ltx2", "2"], ["not_finite", "ltx2", "1"]]
        expect(page.locator("#usage-title ~ .help")).to_contain_text("A GPU hour is counted at 2.5.")
        page.get_by_text("As numbers").click()
        assert [row[1:] for row in texts(page, "Days on which jobs ended")] == [["4", "0", "0"], ["6", "3", "1"]]


@pytest.mark.parametrize("window", [{}, {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}}], ids=["light", "phone"])
def test_axe_finds_nothing_and_every_control_is_reached_by_keyboard(open_page: Open, window: dict[str, Any]) -> None:
    with running_stand_in(analytics=FOUND) as server:
        page = look(open_page, server, **window)
        expect(page.get_by_role("heading", name="Analytics")).to_be_focused()
        tab_to(page, page.locator("summary", has_text="As numbers"))
        page.keyboard.press("Enter")
        tab_to(page, page.get_by_role("region", name="By reason and model"))
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_days_on_which_nothing_ended_are_told_and_others_are_asked_for(open_page: Open) -> None:
    nothing = replace(FOUND, days=tuple(Day(day.day, 0, 0, 0) for day in FOUND.days), families=(), usage=(), failures=())
    with running_stand_in(analytics=nothing) as server:
        page = look(open_page, server)
        expect(page.locator(".analytics .hint")).to_contain_text("No job ended in these days")
        assert page.locator(".analytics table").count() == 0 and violations(page) == []
        server.analytics = FOUND
        with page.expect_request(lambda request: request.url.endswith("/v1/analytics?days=90")):
            page.get_by_label("Look back").select_option("90 days")
        expect(page.get_by_role("region", name="ltx2")).to_be_visible()


def test_without_a_gpu_and_a_price_the_page_says_so(open_page: Open) -> None:
    usage = tuple(replace(row, gpu_seconds=0.0, money=None) for row in FOUND.usage)
    with running_stand_in(analytics=replace(FOUND, gpu_hour_price=None, usage=usage)) as server:
        page = look(open_page, server)
        expect(page.locator("#usage-title ~ .help")).to_contain_text("No step ran on a GPU")
        expect(page.locator("#usage-title ~ .help")).to_contain_text("told no price")
        assert texts(page, "By tenant and model")[0] == ["acme", "ltx2", "9", "2.0 h", "0 ms", "81.50"]


def test_a_key_is_asked_for_and_who_declines_may_think_better_of_it(open_page: Open) -> None:
    with running_stand_in(analytics=FOUND) as server:
        page = open_page(server.url)
        page.get_by_label("What should happen?").wait_for()
        page.wait_for_load_state("networkidle")  # what the first page asks for is not what the key is wanted for
        server.key = KEY
        page.get_by_role("link", name="Analytics").click()
        page.get_by_role("button", name="Not now").click()
        expect(page.locator(".analytics [role=alert]")).to_contain_text("wants an API key")
        page.get_by_role("button", name="Count anew").click()
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name="ltx2")).to_be_visible()
