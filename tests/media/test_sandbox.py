"""Uploads are decoded in a child that has nothing, lives as long as one request, and is not believed."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image

from aiprod_components.errors import InvalidMediaError, UnavailableError
from aiprod_components.media import sandbox
from aiprod_components.media.footage import check_footage, checked_footage, footage_check, read_footage
from aiprod_components.media.messages import MAX_HEADER, receive, send
from aiprod_components.media.pictures import REMEDY, check_picture, checked_picture, picture_check, read_picture
from aiprod_components.media.sandbox import CHECKING, Answers, Limits, Task, ask
from aiprod_components.media.uploads import check_media
from aiprod_components.values import Footage, FootageShape, Picture
from tests.bodies import footage, picture
from tests.media.children import children


@pytest.fixture(autouse=True)
def others() -> Iterator[set[int]]:
    """Processes of other tests. Whatever a test does, its own are gone at the end, and waited for."""
    before = children()
    yield before
    assert children() <= before


@cache
def large() -> bytes:
    """Half a second of work and 300 MB of memory."""
    file = io.BytesIO()
    Image.new("RGBA", (7680, 4320), (1, 2, 3, 4)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_a_picture_and_a_film_are_read_by_one_child(monkeypatch: pytest.MonkeyPatch):
    started: list[int] = []

    monkeypatch.setattr(sandbox, "_await_ready", lambda process, ready=sandbox._await_ready: (started.append(process.pid), ready(process)))
    still, moving = picture(), footage()
    media = check_media(pictures={"a": still, "b": still}, footage={"c": moving})
    assert media.pictures == {"a": Picture(still), "b": Picture(still)} and media.footage["c"].shape == FootageShape(64, 64, 9 / 16, 16.0)
    assert len(started) == 1
    assert check_media(pictures={}, footage={}).pictures == {} and len(started) == 1  # none without media


def test_the_child_has_no_secret_no_file_and_no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AIPROD_SECRET", "swordfish")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with sandbox._child(CHECKING) as process:
            sandbox._await_ready(process)
            at = Path(f"/proc/{process.pid}")
            environment = (at / "environ").read_bytes()
            links = {number.name: str(number.readlink()) for number in (at / "fd").iterdir()}
            status = dict(line.split(":\t", 1) for line in (at / "status").read_text().splitlines() if ":\t" in line)
            mapped = (at / "maps").read_text()
    assert environment.split(b"\0")[:-1] == [f"{name}={value}".encode() for name, value in sandbox.ENVIRONMENT.items()]
    assert all(link.startswith("pipe:") for link in links.values()) and set(links) <= {"0", "1", "2"}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
    assert "torch" not in mapped and "libav" in mapped


def test_nothing_is_decoded_in_this_process(monkeypatch: pytest.MonkeyPatch):
    still, moving = picture(), footage()
    for module, name in ((av, "open"), (Image, "open"), (Image, "frombytes"), (Image, "frombuffer")):
        monkeypatch.delattr(module, name)
    media = check_media(pictures={"a": still}, footage={"b": moving})
    assert read_picture(media.pictures["a"], height=8, width=8).shape == (1, 1, 8, 8, 3)
    assert read_footage(media.footage["b"], num_frames=9, height=8, width=8, frame_rate=16.0).shape == (1, 9, 8, 8, 3)


def test_footage_that_was_checked_is_not_checked_again(monkeypatch: pytest.MonkeyPatch):
    checked = check_footage(footage(), field="a")
    assert (
        checked == Footage(checked.data) and hash(checked) == hash(Footage(checked.data)) and checked.digest == Footage(checked.data).digest
    )
    asked: list[str] = []
    monkeypatch.setattr(
        sandbox, "_give", lambda process, tasks, give=sandbox._give: (asked.extend(t.kind for t in tasks), give(process, tasks))
    )
    read_footage(checked, num_frames=9, height=8, width=8, frame_rate=16.0)
    assert asked == ["read_footage"]


def read_all(tasks: list[Task], answers: Answers) -> None:
    for task in tasks:
        answers.header(task)
        answers.fill(task, memoryview(bytearray(8 * 8 * 3)))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(1, 60.0), "d[0-9] takes more than 1 s of computing to read"),
        (Limits(60, 0.05), "d0 takes more than 0.05 s to read"),
        (Limits(60, 60.0, 300 << 20), "d0 takes more than 300 MiB of memory to read"),
    ],
    ids=["computing", "waiting", "memory"],
)
def test_a_limit_is_told_with_the_field_and_the_way_out(limits: Limits, says: str):
    data = large()
    tasks = [Task("read_picture", f"d{index}", data, REMEDY, {"height": 8, "width": 8}) for index in range(9)]
    with pytest.raises(InvalidMediaError, match=f"^{says}; {REMEDY}$") as caught, ask(tasks, limits=limits) as answers:
        read_all(tasks, answers)
    assert caught.value.message.startswith(f"{caught.value.field} ")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_child_that_dies_is_told_as_a_damaged_file(number: signal.Signals, others: set[int]):
    task = picture_check(large(), field="input_reference")
    with ask([task], limits=CHECKING) as answers:
        (child,) = children() - others
        os.kill(child, number)
        with pytest.raises(InvalidMediaError, match=rf"did not survive \({number.name}\)") as caught:
            answers.header(task)
    assert caught.value.field == "input_reference"


LIES: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\0\0",
    "more than a header may be": (MAX_HEADER + 1).to_bytes(4) + b"{}",
    "half a header": (100).to_bytes(4) + b"{",
    "a list": (2).to_bytes(4) + b"[]",
    "brackets without end": MAX_HEADER.to_bytes(4) + b"[" * MAX_HEADER,
    "a number of many digits": (9011).to_bytes(4) + b'{"width": ' + b"9" * 9000 + b"}",
    "a pickle": (10).to_bytes(4) + b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00",
}
SHAPES: dict[str, dict[str, Any]] = {
    "no shape": {},
    "a shape of words": {"width": "8", "height": 8, "seconds": 1.0, "frame_rate": 8.0},
    "a shape without area": {"width": 0, "height": 8, "seconds": 1.0, "frame_rate": 8.0},
    "a shape without end": {"width": 8, "height": 8, "seconds": float("inf"), "frame_rate": 8.0},
    "a shape of no number": {"width": 8, "height": 8, "seconds": 1.0, "frame_rate": float("nan")},
}


def as_message(header: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    send(file, header)
    return file.getvalue()


@pytest.mark.parametrize("lie", [*LIES.values(), *map(as_message, SHAPES.values())], ids=[*LIES, *SHAPES])
def test_a_captured_child_is_not_believed(lie: bytes):
    """A process of its own in the child's place, which says what it likes."""
    script = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))"
    with subprocess.Popen([sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(lie.hex().encode())
        process.stdin.close()
        task = footage_check(b"", field="reference_video")
        with pytest.raises(InvalidMediaError, match="reference_video is damaged in a way that its reader did not survive"):
            checked_footage(task, Answers(process, CHECKING, late=threading.Event()))


def test_a_header_is_what_was_sent():
    pipe = io.BytesIO()
    send(pipe, {"a": [1, "é"]}, b"payload")
    pipe.seek(0)
    assert receive(pipe) == {"a": [1, "é"]} and pipe.read() == b"payload" and receive(pipe) is None


def test_a_sandbox_that_cannot_start_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "CHILD", "import there_is_no_such_library")
    with pytest.raises(
        UnavailableError, match="could not be started here: ModuleNotFoundError: No module named 'there_is_no_such_library'"
    ):
        check_picture(picture(), field="a")
    monkeypatch.setattr(sandbox, "CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "START_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match=r"not ready after 0\.5 s"):
        check_picture(picture(), field="a")
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    with pytest.raises(UnavailableError, match="No such file"):
        check_picture(picture(), field="a")


class WantedNoMoreError(Exception):
    pass


def test_work_that_is_given_up_ends_the_child_at_once():
    seen = 0

    def watch() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise WantedNoMoreError

    with pytest.raises(WantedNoMoreError):
        read_footage(Footage(footage()), num_frames=9, height=64, width=64, frame_rate=16.0, watch=watch)
    assert seen == 3
    with pytest.raises(KeyboardInterrupt), ask([picture_check(large(), field="a")], limits=CHECKING):
        raise KeyboardInterrupt


def test_a_refusal_ends_the_rest_of_the_body():
    started = time.monotonic()
    with pytest.raises(InvalidMediaError, match="a is not a picture"):
        check_media(pictures={"a": b"text", "b": large()}, footage={"c": bytes(20_000_000)})
    assert time.monotonic() - started < 30


def test_as_many_children_as_seats(monkeypatch: pytest.MonkeyPatch, others: set[int]):
    seats = threading.BoundedSemaphore(1)
    monkeypatch.setattr(sandbox, "SEATS", seats)
    done: list[Picture] = []
    waiting = threading.Thread(target=lambda: done.append(check_picture(picture(), field="a")))
    with seats:
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and children() <= others
    waiting.join(60)
    assert done == [Picture(picture())]


def test_a_child_does_not_outlive_its_parent():
    script = """
import sys, time
from aiprod_components.media import sandbox
with sandbox._child(sandbox.CHECKING) as process:
    sandbox._await_ready(process)
    print(process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/maps").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_pictures_come_back_as_they_were_sent():
    pixels = torch.randint(0, 256, (24, 40, 3), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    with ask([picture_check(file.getvalue(), field="a")], limits=CHECKING) as answers:
        assert checked_picture(picture_check(file.getvalue(), field="a"), answers).data == file.getvalue()
    assert torch.equal(read_picture(Picture(file.getvalue()), height=24, width=40)[0, 0], pixels)
