"""A file that names another does not get it opened: not by the door, not by the readers behind it, not by the process they run in."""

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from aiprod_components.errors import InvalidMediaError
from aiprod_components.families import make_family
from aiprod_components.media import probe
from aiprod_components.media.probe import survey
from aiprod_components.pipelines.ic_lora import ICLora
from aiprod_components.values import FootageShape
from deployments.api.body import parse_form, parse_json
from deployments.api.wire import Wire
from tests.bodies import footage, picture
from tests.hostile.forged_videos import MANIFEST, PLAYLIST, box, changed, elsewhere, film
from tests.media.clips import CODECS, corner, encoded

WIRE = Wire({"miniature": make_family("miniature")})
ABSOLUTE = {"enable_drefs": "1", "use_absolute_path": "1"}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the server's own that a playlist can show, last read long ago."""
    monkeypatch.setitem(CODECS, "ts", "libx264")
    encoded(corner(5), tmp_path, container="ts")
    path = tmp_path / "video.ts"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def playlist(path: Path) -> bytes:
    return PLAYLIST.replace(b"file:///etc/passwd", str(path).encode())


def script(path: Path) -> bytes:
    return f"ffconcat version 1.0\nfile {path}\n".encode()


def pointing(path: Path) -> bytes:
    """An mp4 without pictures of its own."""
    return changed(elsewhere(str(path)), b"mdat", lambda mdat: bytes(len(mdat)))


def frames_of(data: bytes, *, format: str | None, options: dict[str, str]) -> int:
    with av.open(io.BytesIO(data), "r", format=format, options=options) as container:
        return len(list(container.decode(video=0)))


# How it is written -> how a reader without our options comes by it.
POINTERS: dict[str, tuple[Callable[[Path], bytes], str, dict[str, str]]] = {
    "a playlist": (playlist, "hls", {}),
    "a script": (script, "concat", {"safe": "0", "protocol_whitelist": "file"}),
}


@pytest.mark.parametrize("name", POINTERS)
def test_what_another_reader_opens_stays_closed_here(name: str, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, kind, options = POINTERS[name]
    data = make(canary)
    assert frames_of(data, format=kind, options=options) == 5  # there is something to keep closed
    os.utime(canary, (1_000_000_000, 1_000_000_000))
    with pytest.raises(InvalidMediaError, match="is not a video"):
        survey(data, field="reference_video")
    # And if the first bytes said nothing: the list of formats, and a reader that was named all the same.
    for reader in ("", kind):
        monkeypatch.setattr(probe, "_reader", lambda data, field, reader=reader: reader or None)
        with pytest.raises(InvalidMediaError, match="damaged"):
            survey(data, field="reference_video")
    monkeypatch.setattr(probe, "READERS", (*probe.READERS, kind))
    with pytest.raises(InvalidMediaError, match="damaged"):
        survey(data, field="reference_video")
    assert canary.stat().st_atime == 1_000_000_000


def test_pictures_in_another_file_are_not_fetched(tmp_path: Path) -> None:
    """The names of files in an mp4 are ignored by default; and asked to follow them, FFmpeg finds nothing that opens."""
    path = tmp_path / "video.mp4"
    path.write_bytes(film())
    data = pointing(path)
    assert frames_of(data, format="mov", options=ABSOLUTE) == 5
    with pytest.raises(InvalidMediaError, match="damaged"):
        survey(data, field="reference_video")


def test_a_pipe_that_would_never_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it blocks until somebody writes, and nobody does."""
    pipe = tmp_path / "video.ts"
    os.mkfifo(pipe)
    for data in (playlist(pipe), script(pipe), pointing(pipe), box(b"ftyp", b"isom" + playlist(pipe))):
        with pytest.raises(InvalidMediaError):
            survey(data, field="reference_video")
        with pytest.raises(InvalidMediaError):
            WIRE.read(parse_form([("prompt", "a red ball"), ("reference_video", data)]))
    monkeypatch.setattr(probe, "_reader", lambda data, field: "hls")
    with pytest.raises(InvalidMediaError):
        survey(playlist(pipe), field="reference_video")


@pytest.mark.parametrize("make", [playlist, script, pointing, lambda path: MANIFEST], ids=["playlist", "script", "mp4", "manifest"])
def test_a_body_learns_nothing_of_the_file_it_names(make: Callable[[Path], bytes], canary: Path) -> None:
    data = make(canary)
    for field in ("reference_video", "input_reference"):
        with pytest.raises(InvalidMediaError) as caught:
            WIRE.read(parse_form([("prompt", "a red ball"), (field, data)]))
        assert caught.value.field == field and str(canary) not in caught.value.message
    assert canary.stat().st_atime == 1_000_000_000


def test_a_body_with_a_playlist_inside_a_real_film_is_the_film(canary: Path) -> None:
    data = footage(num_frames=33) + box(b"free", playlist(canary))
    asked = WIRE.read(parse_form([("prompt", "a red ball"), ("size", "64x64"), ("reference_video", data)]))
    assert isinstance(asked.request, ICLora)
    assert asked.request.reference_video.footage.shape == FootageShape(64, 64, 33 / 16, 16.0)
    assert canary.stat().st_atime == 1_000_000_000


def test_the_ingress_itself_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"data:;base64,{base64.b64encode(data).decode()}" for data in (footage(num_frames=33), picture())]
    body = {"prompt": "a red ball", "size": "64x64", "reference_video": {"video_url": urls[0]}, "input_reference": {"image_url": urls[1]}}
    for module, name in ((av, "open"), (Image, "open")):
        monkeypatch.delattr(module, name)
    asked = WIRE.read(parse_json(json.dumps(body).encode()))
    assert asked.request.pipeline == "ic_lora" and any(step.name.startswith("reference") for step in asked.plan.steps)
