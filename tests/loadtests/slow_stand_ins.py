"""stand-ins for both faces of the graph whose videos take as long as a test says, by the size that is asked for"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from deployments.api.proto.aiprod.v1 import video_pb2 as pb
from deployments.api.proto.aiprod.v1.video_pb2_grpc import VideoServiceServicer, add_VideoServiceServicer_to_server
from tests.client.stand_in import Answer, Received, StandIn, event

LOOK_AGAIN = 0.01


@dataclass
class Videos:
    """Seconds a video takes by its number of frames; who asked when, and what was cancelled, over both faces."""

    seconds: dict[int, float]
    asked: list[tuple[str, int, float]] = field(default_factory=list[tuple[str, int, float]])
    cancelled: set[str] = field(default_factory=set[str])
    frames: dict[str, int] = field(default_factory=dict[str, int])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, face: str, frames: int) -> str:
        with self.lock:
            name = f"{face}_{len(self.asked)}"
            self.asked.append((face, frames, time.perf_counter()))
            self.frames[name] = frames
        return name

    def states(self, name: str) -> Iterator[str]:
        """As they come about."""
        yield "in_progress"
        ends = time.perf_counter() + self.seconds[self.frames[name]]
        while time.perf_counter() < ends:
            if name in self.cancelled:
                yield "cancelled"
                return
            time.sleep(LOOK_AGAIN)
        yield "completed"


class SlowStandIn(StandIn):
    """The HTTP face."""

    request_queue_size = 128  # so many may ask at once

    def __init__(self, videos: Videos) -> None:
        super().__init__()
        self.taking = videos

    def _route(self, received: Received) -> Answer:
        received.headers.setdefault("idempotency-key", str(len(self.received)))  # load tests send none
        name, _, call = received.call.removeprefix("GET /v1/videos/").removeprefix("POST /v1/videos/").partition("/")
        if call == "cancel":
            self.taking.cancelled.add(name)
        if call == "events":
            return Answer(self._events(name), headers={"content-type": "text/event-stream"})
        return super()._route(received)

    def _add(self, received: Received, source: str) -> str:
        name = self.taking.add("http", received.body["num_frames"])
        self.videos[name] = {"id": name, "object": "video", "status": "queued"}
        return name

    def _events(self, name: str) -> Iterator[bytes]:
        """As they come about, and not under the lock."""
        for status in self.taking.states(name):
            yield event("video", {**self.videos[name], "status": status})


class SlowServicer(VideoServiceServicer):
    """The gRPC face."""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos

    def CreateVideo(self, request: Any, context: Any) -> pb.CreateVideoResponse:  # noqa: N802 - the RPC's name
        return pb.CreateVideoResponse(video=pb.Video(id=self._videos.add("grpc", request.num_frames)))

    def WatchVideo(self, request: Any, context: Any) -> Iterator[pb.VideoEvent]:  # noqa: N802
        for status in self._videos.states(request.id):
            yield pb.VideoEvent(video=pb.Video(id=request.id, status=status.upper()))

    def CancelVideo(self, request: Any, context: Any) -> pb.Video:  # noqa: N802
        self._videos.cancelled.add(request.id)
        return pb.Video(id=request.id, status=pb.Video.CANCELLED)

    def DownloadVideo(self, request: Any, context: Any) -> Iterator[pb.VideoChunk]:  # noqa: N802
        yield pb.VideoChunk(data=b"a video")


@dataclass(frozen=True)
class Graph:
    """Where the faces are, and what they were asked."""

    url: str
    grpc: str
    videos: Videos
    http: StandIn


@contextmanager
def slow_graph(seconds: dict[int, float]) -> Iterator[Graph]:
    videos = Videos(seconds)
    server = grpc.server(ThreadPoolExecutor(64))
    add_VideoServiceServicer_to_server(SlowServicer(videos), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with SlowStandIn(videos) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield Graph(http.url, f"127.0.0.1:{port}", videos, http)
        http.shutdown()
        thread.join()
    server.stop(None).wait()
