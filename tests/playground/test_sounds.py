"""a person who asks for a sound alone -> a player for it, and nothing where a picture would be"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.playground.conftest import Open
from tests.playground.stand_in import StandIn, running_stand_in
from tests.playground.test_playground import WAIT, ask_for, violations

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
HEARD = """async audio => {
  await audio.play();
  while (audio.currentTime < 0.1) await new Promise(resolve => setTimeout(resolve, 20));
  return audio.duration;
}"""


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with running_stand_in(sounds=True) as running:
        yield running


@pytest.fixture
def page(open_page: Open, stand_in: StandIn) -> Any:
    page = open_page(stand_in.url)
    page.get_by_label("Pipeline").select_option("text_to_audio")
    return page


def test_a_prompt_becomes_a_sound_that_is_played_and_fetched(page: Any) -> None:
    refused: list[str] = []
    page.on("response", lambda response: refused.append(response.url) if response.status >= 400 else None)
    assert page.get_by_text("Width in pixels").count() == 0 and page.locator("#field-size").count() == 0
    ask_for(page, "rain on a roof", num_frames=18)
    expect(page.locator(".screen audio")).to_be_visible(timeout=WAIT)
    assert page.locator(".screen audio").evaluate(HEARD) == pytest.approx(18 / 16, abs=0.03)
    assert page.locator(".screen video").count() == 0 and page.locator(".facts").get_by_text("Size").count() == 0
    expect(page.locator(".card.chosen .blank svg")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("rain-on-a-roof-") and download.value.suggested_filename.endswith(".m4a")
    assert violations(page) == [] and refused == []


def test_a_sound_can_be_made_anew_with_other_words_and_not_be_carried_on(page: Any) -> None:
    ask_for(page, "thunder", num_frames=9)
    expect(page.locator(".screen audio")).to_be_visible(timeout=WAIT)
    names = [button.inner_text().strip() for button in page.locator(".actions button").all()]
    assert "Remix" in names and "Extend" not in names
    page.get_by_text("Use it from code").click()
    assert "-o sound.m4a" in page.locator(".code pre").inner_text()
