"""Debian's Chromium, a server -> a page that is watched: it may ask nobody else and may not fail unseen"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.playground.stand_in import running_stand_in

PATIENCE = float(os.environ.get("AIPROD_TEST_PATIENCE", "60"))  # seconds, for a video to be made
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """For one module: while it is open, Playwright's event loop is in the way of other tests'."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the playground is tested with playwright: pip install playwright")
    found = os.environ.get("AIPROD_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no Chromium here: apt install chromium, or name one in $AIPROD_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        # As root, as in most containers, Chromium starts without its sandbox only.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """Where the playground is: $AIPROD_PLAYGROUND_URL, else a stand-in."""
    if named := os.environ.get("AIPROD_PLAYGROUND_URL"):
        yield named.rstrip("/")
        return
    with running_stand_in() as stand_in:
        yield stand_in.url


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a server's playground in a window of its own. In the end nothing may have failed, nor been asked of anyone else."""
    with ExitStack() as stack:
        faults: list[str] = []

        def open_page(url: str, **window: Any) -> Any:
            settings = {"viewport": {"width": 1360, "height": 900}, "reduced_motion": "reduce", **window}
            context = browser.new_context(**settings)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
            page.on("console", lambda message: faults.append(message.text) if "Content Security Policy" in message.text else None)
            page.on("request", lambda request: faults.append(f"asked {request.url}") if not ours(request.url, url) else None)
            page.goto(url)
            return page

        yield open_page
        assert faults == []


def ours(address: str, server: str) -> bool:
    return address.startswith((server, f"blob:{server}", "data:"))


@pytest.fixture
def page(open_page: Open, server_url: str) -> Any:
    page = open_page(server_url)
    page.get_by_label("What should happen?").wait_for()
    return page
