"""bytes, cut anywhere -> events"""

import pytest

from aiprod_client import AiprodClientError, PreviewEvent, VideoEvent
from aiprod_client.event_stream import EventStream

SENT = (
    b": a comment\r\n\r\n"
    b'event: video\r\ndata: {"id": "video_1",\r\ndata: "status": "queued", "prompt": "\xc3\xa9t\xc3\xa9"}\r\n\r\n'
    b'event:video\rdata:{"id": "video_2", "status": "queued"}\r\r'
    b"event: news\ndata: of tomorrow\n\n"
    b"data: of no kind\n\n"
    b"event: video\n\n"
    b"retry: 100\nid: 7\n"
    b'event: preview\ndata: {"image": "data:image/png;base64,QUJD"}\n\n'
    b'event: video\ndata: {"id": "unfinished"'
)


def seen(*chunks: bytes) -> list[str | PreviewEvent]:
    decoder = EventStream()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [f"{event.job.id} {event.job.prompt}" if isinstance(event, VideoEvent) else event for event in events]


EXPECTED = ["video_1 été", "video_2 None", PreviewEvent(b"ABC", "image/png")]


def test_events_are_read_whatever_ends_their_lines() -> None:
    assert seen(SENT) == EXPECTED


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    assert seen(*(SENT[start : start + size] for start in range(0, len(SENT), size))) == EXPECTED


def test_an_event_is_there_as_soon_as_it_is_whole() -> None:
    decoder = EventStream()
    assert list(decoder.feed(b'event: video\ndata: {"id": "video_1", "status": "queued"}\n')) == []
    assert len(list(decoder.feed(b"\n"))) == 1


@pytest.mark.parametrize(
    "event",
    [
        b"event: video\ndata: []\n\n",
        b"event: video\ndata: 3\n\n",
        b"event: preview\ndata: {}\n\n",
        b'event: preview\ndata: {"image": 3}\n\n',
        b'event: preview\ndata: {"image": "data:image/png;base64,?"}\n\n',
    ],
)
def test_an_event_that_says_nothing_is_refused(event: bytes) -> None:
    with pytest.raises(AiprodClientError) as raised:
        list(EventStream().feed(event))
    assert raised.value.code == "not_aiprod"
