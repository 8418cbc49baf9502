"""a person at the playground -> what it shows and does, against whatever server `server_url` names

No test here knows how fast the server is: `AIPROD_PLAYGROUND_URL=http://127.0.0.1:8000 pytest tests/playground/test_playground.py` asks
a real one.
"""

import re
from typing import Any

import pytest

from tests.playground.conftest import Open

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
PROMPT = "a big red ball bounces on a navy background"
SECTIONS = ("Guidance", "Sampling", "Output", "More", "Use it from code")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WAIT = 60_000
PLAYED = """async video => {
  await video.play();
  while (video.currentTime < 0.1) await new Promise(resolve => setTimeout(resolve, 20));
  return video.videoWidth;
}"""
# Focus is drawn on what can be seen of a control.
FOCUS_SHOWN = """() => { const at = document.activeElement; return [at, at.closest(".chip, .tab, .file, .viewer")].some(
  element => element && getComputedStyle(element).outlineStyle !== "none") }"""


def ask_for(page: Any, prompt: str, **settings: Any) -> None:
    page.get_by_label("What should happen?").fill(prompt)
    for label, value in settings.items():
        page.locator(f"#field-{label}").fill(str(value))
    before = page.url
    page.get_by_role("button", name="Create video").click()
    expect(page).not_to_have_url(before, timeout=WAIT)  # the one that was looked at may have the same prompt
    expect(page.locator(".panel > .prompt")).to_have_text(prompt, timeout=WAIT)


def wait_until_playing(page: Any) -> None:
    video = page.locator(".screen video")
    expect(video).to_be_visible(timeout=WAIT)
    assert video.evaluate(PLAYED) > 0


def tab_to(page: Any, locator: Any, *, presses: int = 120) -> None:
    """Goes on from control to control; each must show that it has the focus."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS_SHOWN), page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if locator.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{locator} is not reached with the Tab key")


def violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page, options={"runOnly": RULES}).response
    assert len(found["passes"]) > 10  # it looked
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found["violations"] for node in rule["nodes"]]


def test_a_prompt_becomes_a_video_whose_making_is_seen(page: Any) -> None:
    ask_for(page, PROMPT)
    expect(page.locator(".progress .state")).to_have_text(re.compile(r"step \d+ of \d+"), timeout=WAIT)
    expect(page.locator(".screen .preview")).to_have_attribute("src", re.compile("^data:image/"), timeout=WAIT)
    expect(page.locator(".graph .step.running")).to_have_count(1, timeout=WAIT)
    wait_until_playing(page)
    steps = page.locator(".timings tbody tr")
    expect(steps.first).to_contain_text("prompt")
    assert steps.count() == page.locator(".graph .step").count()
    expect(page.locator(".card.chosen img")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith(".mp4")
    assert download.value.path().read_bytes()[4:8] == b"ftyp"


def test_a_video_is_remixed_and_its_settings_are_used_again(page: Any) -> None:
    ask_for(page, PROMPT, num_frames=9, num_inference_steps=4, seed=11)
    wait_until_playing(page)
    page.get_by_role("button", name="Remix", exact=True).click()
    prompt = page.get_by_label("New prompt, same seed and settings")
    expect(prompt).to_be_focused()
    prompt.fill("a small green star spins slowly")
    page.get_by_role("button", name="Create remix").click()
    expect(page.locator(".panel > .prompt")).to_have_text("a small green star spins slowly")
    wait_until_playing(page)
    expect(page.locator(".facts")).to_contain_text("Seed11")
    expect(page.locator(".facts")).to_contain_text("an earlier video")
    page.get_by_role("button", name="Reset the settings").click()
    expect(page.locator("#field-num_inference_steps")).to_have_value("30")
    page.get_by_role("button", name="Reuse settings", exact=True).click()
    expect(page.locator("#field-num_inference_steps")).to_have_value("4")
    expect(page.locator("#field-seed")).to_have_value("11")
    expect(page.get_by_label("What should happen?")).to_have_value("a small green star spins slowly")


def test_a_video_is_extended(page: Any) -> None:
    ask_for(page, PROMPT, num_frames=17, num_inference_steps=2)
    wait_until_playing(page)
    page.get_by_role("button", name="Extend", exact=True).click()
    page.get_by_label("Go on for how many seconds?").fill("1")
    page.get_by_role("button", name="Create extension").click()
    expect(page.locator(".facts")).to_contain_text("an earlier video")
    wait_until_playing(page)
    assert page.locator(".screen video").evaluate("video => video.duration") > 1.5


def test_a_video_is_cancelled_and_deleted_by_keyboard_alone(page: Any) -> None:
    tab_to(page, page.get_by_label("What should happen?"))
    page.keyboard.type("a blue square moves left")
    for field, value in (("num_frames", "241"), ("num_inference_steps", "100")):  # long enough to be cancelled on any machine
        tab_to(page, page.locator(f"#field-{field}"))
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(value)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#field-num_inference_steps")).to_have_value("99")
    page.keyboard.press("ControlOrMeta+Enter")
    expect(page.locator(".panel > .prompt")).to_have_text("a blue square moves left")
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    tab_to(page, cancel)
    page.keyboard.press("Enter")
    expect(page.locator(".screen")).to_have_text("Cancelled", timeout=WAIT)
    expect(page.locator("#viewer-title")).to_be_focused()
    card = page.locator(".card.chosen").get_attribute("data-id")
    tab_to(page, page.locator(f"[data-id={card}]").get_by_role("button", name=re.compile("^Delete")))
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete this video?")
    expect(dialog.get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-id={card}]")).to_have_count(0)
    assert page.evaluate("document.activeElement !== document.body")


def test_a_dialog_gives_the_focus_back(page: Any) -> None:
    key = page.get_by_role("button", name=re.compile("^API key"))
    key.click()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(key).to_be_focused()


def test_a_number_out_of_bounds_is_told_at_its_field_before_anything_is_sent(page: Any) -> None:
    page.get_by_label("What should happen?").fill(PROMPT)
    page.locator("#field-num_inference_steps").fill("0")
    expect(page.locator("#field-num_inference_steps-fault")).to_have_text("Must be at least 1, got 0.")
    page.locator("#field-num_frames").fill("30")
    expect(page.locator("#field-num_frames-fault")).to_contain_text("nearest is 29")
    output = page.locator("summary", has_text="Output")
    output.click()
    page.locator("#field-fps").fill("0")
    output.click()
    expect(output).to_contain_text("needs a look")
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    page.get_by_role("button", name="Create video").click()
    expect(page.locator("#field-num_frames")).to_be_focused()
    expect(page.locator("#field-num_frames")).to_have_attribute("aria-invalid", "true")
    assert posted == []


def test_what_only_the_server_knows_is_told_at_its_field_too(page: Any) -> None:
    page.get_by_label("What should happen?").fill(PROMPT)
    page.get_by_label("Width in pixels").fill("100")
    expect(page.locator("#field-size-fault")).to_contain_text("size")
    page.get_by_role("button", name="Create video").click()
    expect(page.locator("[data-path=size] :focus")).to_have_count(1)


def test_an_empty_prompt_is_asked_for(page: Any) -> None:
    expect(page.locator(".fault")).to_have_count(0)
    page.get_by_role("button", name="Create video").click()
    expect(page.get_by_label("What should happen?")).to_be_focused()
    expect(page.locator("#field-prompt-fault")).to_be_visible()


def test_every_field_of_every_pipeline_has_a_control(page: Any, server_url: str) -> None:
    family = page.request.get(f"{server_url}/v1/models").json()["data"][0]
    apart = {"model", "pipeline", "seconds"} | {name for name, able in family["abilities"].items() if able is False}
    for pipeline, described in family["pipelines"].items():
        page.locator("#field-pipeline").select_option(pipeline)
        conditional = {"image_strength", "reference_strength"}  # shown with their file
        expected = set(described["fields"]["properties"]) - apart - conditional
        assert {name for name in expected if page.locator(f"[data-path='{name}']").count() == 0} == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_at_the_start_and_with_all_settings_open(open_page: Open, server_url: str, scheme: str) -> None:
    page = open_page(server_url, color_scheme=scheme)
    page.get_by_label("What should happen?").wait_for()
    expect(page.locator(".graph svg .step").first).to_be_visible()
    assert violations(page) == []
    page.locator("#field-pipeline").select_option("keyframe_interpolation")
    for section in SECTIONS:
        page.locator("summary", has_text=section).click()
    page.get_by_label("Skip guidance").check()
    page.locator("[data-path=keyframes] .add").click()
    page.locator("[data-path=loras] .add").click()
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".fault").first).to_be_visible()
    assert violations(page) == []


def test_axe_finds_nothing_on_a_phone_during_and_after_a_video(open_page: Open, server_url: str) -> None:
    page = open_page(server_url, color_scheme="dark", viewport={"width": 360, "height": 740})
    ask_for(page, PROMPT, num_inference_steps=100)
    expect(page.locator(".screen .preview")).to_be_visible(timeout=WAIT)
    assert violations(page) == []
    wait_until_playing(page)
    page.get_by_role("button", name="Remix", exact=True).click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Delete", exact=True).click()
    assert violations(page) == []
    page.get_by_role("button", name="Keep").click()


def test_what_was_made_is_counted_and_the_draft_and_the_video_are_still_there_afterwards(page: Any) -> None:
    ask_for(page, PROMPT, num_frames=9, num_inference_steps=2)
    wait_until_playing(page)
    address = page.url
    page.get_by_label("What should happen?").fill("a draft that stays")
    page.get_by_role("link", name="Analytics").press("Enter")
    expect(page.get_by_role("heading", name="Analytics")).to_be_focused()
    expect(page.locator(".days .part")).not_to_have_count(0)
    expect(page.get_by_role("region", name="miniature").get_by_role("row", name="Denoiser")).to_be_visible()
    expect(page.get_by_role("region", name="By tenant and model").get_by_role("row", name="local")).to_contain_text("miniature")
    assert not page.locator(".screen video").is_visible()
    page.get_by_role("link", name="Videos").click()
    expect(page).to_have_url(address)
    expect(page.locator(".screen video")).to_be_visible()
    expect(page.get_by_label("What should happen?")).to_have_value("a draft that stays")
