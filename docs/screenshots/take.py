"""a server's address -> start.png, progress.png, finished.png and phone.png beside this file

    python docs/screenshots/take.py http://127.0.0.1:8000

It makes a few videos there. Chromium is found as the playground's tests find it.
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).parent
MOST_BYTES = 200_000
WAIT = 300_000  # ms, for a video
PROMPTS = ("a small green star spins slowly on a navy background", "a pink ring orbits on white", "a blue square moves left")
SHOWN = "a big red ball bounces on a navy background"


def main() -> None:
    parser = argparse.ArgumentParser(description="Photographs a server's playground.")
    parser.add_argument("server", help="such as http://127.0.0.1:8000")
    server = parser.parse_args().server
    chromium = os.environ.get("AIPROD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        photograph(browser, server)
        browser.close()


def photograph(browser: Browser, server: str) -> None:
    page = browser.new_page(viewport={"width": 1360, "height": 900}, color_scheme="light")
    page.goto(server)
    expect(page.locator(".graph svg .step").first).to_be_visible()
    save(page, "start")
    for prompt in PROMPTS:
        ask_for(page, prompt)
    expect(page.locator(".card.completed")).to_have_count(len(PROMPTS), timeout=WAIT)
    page.close()

    page = browser.new_page(viewport={"width": 1360, "height": 900}, color_scheme="dark")
    page.goto(server)
    ask_for(page, SHOWN)
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".progress .state")).to_contain_text("step 2", timeout=WAIT)  # of 30: 20 and more
    save(page, "progress")
    page.emulate_media(color_scheme="light")
    expect(page.locator(".timings")).to_be_visible(timeout=WAIT)
    page.wait_for_timeout(800)
    save(page, "finished", whole=True)
    address = page.url
    page.close()

    phone = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="dark")
    phone.goto(address)
    expect(phone.locator(".screen video")).to_be_visible(timeout=WAIT)
    phone.locator(".viewer").evaluate("viewer => viewer.scrollIntoView()")
    phone.wait_for_timeout(800)
    save(phone, "phone")


def ask_for(page: Page, prompt: str) -> None:
    page.get_by_label("What should happen?").fill(prompt)
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".panel > .prompt")).to_have_text(prompt, timeout=WAIT)
    page.mouse.move(0, 0)


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """As a PNG of as many colours as fit. Raises ValueError for one that is still too large."""
    if whole:  # as tall as it is, so that nothing sticks to the middle
        page.set_viewport_size({"width": 1360, "height": page.evaluate("document.documentElement.scrollHeight")})
        page.wait_for_timeout(400)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64):
        file = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        if file.tell() <= MOST_BYTES:
            (HERE / f"{name}.png").write_bytes(file.getvalue())
            return
    raise ValueError(f"{name}.png is larger than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main()
