"""a stand-in that wants a key, breaks off, restarts or refuses -> what the playground makes of it, and what it sends"""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.playground.conftest import Open
from tests.playground.stand_in import StandIn, running_stand_in

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
KEY = "ap_0123456789abcdef"
PROMPT = "a big red ball bounces"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running_stand_in() as running:
        yield running


def ask_for(page: Any, prompt: str, **settings: Any) -> None:
    page.get_by_label("What should happen?").fill(prompt)
    for label, value in settings.items():
        page.locator(f"#field-{label}").fill(str(value))
    page.get_by_role("button", name="Create video").click()


def picture(colour: str) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, "PNG")
    return {"name": f"{colour}.png", "mimeType": "image/png", "buffer": file.getvalue()}


def test_a_key_is_asked_for_kept_and_sent_with_every_call(open_page: Open) -> None:
    with running_stand_in(key=KEY) as server:
        page = open_page(server.url)
        page.get_by_label("Key", exact=True).fill("ap_wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("alert")).to_contain_text("does not know this key")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        ask_for(page, PROMPT, num_frames=9, num_inference_steps=3)
        expect(page.locator(".screen video")).to_be_visible()
        expect(page.locator(".card img")).to_be_visible()
        page.reload()
        expect(page.locator(".screen video")).to_be_visible()
        assert page.evaluate("Object.keys(localStorage).length") == 0 and KEY not in page.content()
    assert set(server.keys_seen) == {None, "Bearer ap_wrong", f"Bearer {KEY}"}


def test_who_declines_to_give_a_key_is_not_asked_again_by_itself(open_page: Open) -> None:
    with running_stand_in(key=KEY) as server:
        page = open_page(server.url)
        page.get_by_role("button", name="Not now").click()
        expect(page.get_by_role("alert")).to_contain_text("wants an API key")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Enter a key").click()
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_label("What should happen?")).to_be_visible()


def test_a_server_that_goes_and_comes_back_loses_nothing(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    ask_for(page, PROMPT, num_frames=9, num_inference_steps=3)
    expect(page.locator(".screen video")).to_be_visible()
    page.get_by_label("What should happen?").fill("a draft that stays")
    stand_in.stop()
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".banner")).to_contain_text("does not answer")
    expect(page.locator(".send .alert")).to_contain_text("Nothing is lost")
    expect(page.locator(".health")).to_contain_text("Offline")
    stand_in.start()
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator(".health")).to_contain_text("Ready")
    expect(page.get_by_label("What should happen?")).to_have_value("a draft that stays")
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".card")).to_have_count(2)


def test_a_broken_stream_is_taken_up_again_until_the_end(open_page: Open) -> None:
    with running_stand_in(cut_after=4) as server:
        page = open_page(server.url)
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if request.url.endswith("/events") else None)
        ask_for(page, PROMPT, num_frames=9)
        expect(page.locator(".screen video")).to_be_visible()
    assert len(streams) > 1


def test_an_answer_that_got_lost_makes_no_second_video(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)

    def lose(route: Any) -> None:
        route.fetch()
        route.abort()

    def is_create(address: str) -> bool:
        return address.endswith("/v1/videos")

    page.route(is_create, lose, times=1)
    ask_for(page, PROMPT, num_frames=9, num_inference_steps=3)
    expect(page.locator(".send .alert")).to_contain_text("does not answer")
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".screen video")).to_be_visible()
    assert len(stand_in.jobs) == 1
    page.get_by_role("button", name="Create video").click()
    expect(page.locator(".card")).to_have_count(2)


def test_why_a_video_failed_is_told(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    ask_for(page, "fail, please", num_inference_steps=3)
    expect(page.locator(".panel [role=alert]")).to_contain_text("the worker was lost three times")
    expect(page.locator(".card .about")).to_have_text("Failed")


def test_what_waits_shows_its_place_and_is_cancelled_while_another_runs(open_page: Open) -> None:
    with running_stand_in(pace=0.2) as server:
        page = open_page(server.url)
        ask_for(page, "first of all", num_inference_steps=50)
        expect(page.locator(".card")).to_have_count(1)
        ask_for(page, "second in line", num_inference_steps=3)
        expect(page.locator(".screen")).to_have_text("Queued, next in line")
        expect(page.locator(".health")).to_contain_text("1 running, 1 queued")
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".screen")).to_have_text("Cancelled")
        expect(page.locator(".card.in_progress")).to_have_count(1)
        page.get_by_role("button", name="first of all").first.click()
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".card.cancelled")).to_have_count(2)


def test_older_videos_are_fetched_a_page_at_a_time(open_page: Open) -> None:
    with running_stand_in(pace=0) as server:
        page = open_page(server.url)
        for number in range(26):
            page.request.post(f"{server.url}/v1/videos", data={"prompt": f"video {number}", "num_frames": 1, "num_inference_steps": 1})
        page.reload()
        expect(page.locator(".card")).to_have_count(24)
        page.get_by_role("button", name="Show older videos").click()
        expect(page.locator(".card")).to_have_count(26)
        expect(page.locator(".card .open").nth(24)).to_be_focused()
        expect(page.get_by_role("button", name="Show older videos")).to_have_count(0)


def test_only_what_differs_from_the_usual_is_sent(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    for section in ("Guidance", "Sampling", "Output", "More"):
        page.locator("summary", has_text=section).click()
    page.get_by_label("Skip guidance").check()
    page.locator("#field-skip_guidance-scale").fill("1.5")
    page.locator("#field-skip_guidance-blocks").fill("0, 1")
    page.locator("#field-sampler").select_option(label="heun")
    page.get_by_label("Lowest").fill("0.2")
    page.locator("#field-guidance_scale").fill("4")
    page.locator("#field-fps").fill("16")  # as it is anyway
    page.get_by_label("Wide").check()
    page.locator("[data-path=loras] .add").click()
    page.locator("#field-loras-0-name").select_option("distilled")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/videos")) as sent:
        ask_for(page, PROMPT, seed=5)
    assert sent.value.post_data_json == {
        "model": "miniature/ti2vid_two_stages",
        "prompt": PROMPT,
        "seed": 5,
        "size": "160x96",
        "guidance_scale": 4,
        "guidance_interval": [0.2, 1],
        "skip_guidance": {"scale": 1.5, "blocks": [0, 1]},
        "sampler": "heun",
        "loras": [{"name": "distilled"}],
    }
    assert re.fullmatch("[0-9a-f]{32}", sent.value.headers["idempotency-key"])


def test_pictures_travel_as_files(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    page.locator("#field-pipeline").select_option("keyframe_interpolation")
    for place, colour in enumerate(("red", "blue")):
        page.locator("[data-path=keyframes] .add").click()
        page.locator(f"#field-keyframes-{place}-image_url").set_input_files([picture(colour)])
        page.locator(f"#field-keyframes-{place}-frame").fill(str(place * 8))
    page.locator("#field-input_reference").set_input_files([picture("green")])
    page.get_by_role("button", name="Remove green.png").click()
    ask_for(page, PROMPT, num_frames=9, num_inference_steps=3)
    expect(page.locator(".screen video")).to_be_visible()
    (job,) = stand_in.jobs.values()
    assert job.video["pipeline"] == "keyframe_interpolation"
    assert [keyframe.frame for keyframe in job.asked.request.keyframes] == [0, 8]  # type: ignore[attr-defined]


def test_a_file_that_is_no_picture_is_refused_at_its_field(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    page.locator("#field-input_reference").set_input_files([{"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"}])
    expect(page.locator("#field-input_reference-fault")).to_contain_text("input_reference")


@pytest.mark.parametrize("language", ["curl", "Python, openai", "Python, aiprod_client"])
def test_the_code_that_is_copied_makes_the_video(open_page: Open, stand_in: StandIn, tmp_path: Path, language: str) -> None:
    if language == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    if "openai" in language:
        pytest.importorskip("openai")
    page = open_page(stand_in.url)
    page.get_by_label("What should happen?").fill('a ball that\'s "big" bounces')
    page.locator("summary", has_text="Guidance").click()
    page.get_by_label("Skip guidance").check()
    page.locator("#field-skip_guidance-scale").fill("1.5")
    page.locator("#field-skip_guidance-blocks").fill("0")
    page.locator("#field-num_frames").fill("9")
    page.locator("#field-seed").fill("3")
    page.locator("#field-input_reference").set_input_files([picture("green")])
    (tmp_path / "green.png").write_bytes(picture("green")["buffer"])
    page.locator("summary", has_text="Use it from code").click()
    page.get_by_role("radio", name=language, exact=True).check(force=True)
    code = page.locator("pre").inner_text()
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "AIPROD_API_KEY": "ap_0", "PYTHONPATH": str(Path(__file__).parents[2]), "no_proxy": "127.0.0.1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert (tmp_path / "video.mp4").read_bytes()[4:8] == b"ftyp"
    (job,) = stand_in.jobs.values()
    request = job.asked.request.model_dump()
    assert (request["prompt"], request["num_frames"], request["seed"]) == ('a ball that\'s "big" bounces', 9, 3)
    assert request["skip_guidance"] == {"scale": 1.5, "blocks": (0,)}
    assert request["image"] is not None


def test_an_event_stream_is_read_in_pieces_of_any_size(open_page: Open, stand_in: StandIn) -> None:
    page = open_page(stand_in.url)
    read = """async ({ text, size }) => {
      const { EventParser } = await import(new URL("playground/stream.js", document.baseURI));
      const parser = new EventParser(), events = [];
      for (let at = 0; at < text.length; at += size) events.push(...parser.take(text.slice(at, at + size)));
      return events;
    }"""
    text = ": still here\r\n\r\nevent: video\r\ndata: {\r\ndata: }\r\n\r\ndata:plain\n\nevent: preview\rdata: a: b\r\rdata: cut off"
    expected = [{"event": "video", "data": "{\n}"}, {"event": "message", "data": "plain"}, {"event": "preview", "data": "a: b"}]
    for size in (1, 2, 3, 7, len(text)):
        assert page.evaluate(read, {"text": text, "size": size}) == expected
