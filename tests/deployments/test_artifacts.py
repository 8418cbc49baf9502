"""bytes in a folder and in a bucket: the same answers from both"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError

from aiprod_components.errors import ConfigError, MissingArtifactError, StoreRefusedError, StoreUnavailableError
from deployments.artifacts import CHUNK_BYTES, ArtifactStore

BUCKET = "videos"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of moto's server: S3's protocol, in memory."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    with pytest.MonkeyPatch.context() as environment:
        running = server.ThreadedMotoServer(port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
        for name, value in (access | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            environment.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/prefix"
        running.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}/artifacts" if request.param == "folder" else request.getfixturevalue("s3"))


async def read(store: ArtifactStore, key: str, start: int, end: int) -> list[bytes]:
    return [chunk async for chunk in store.read(key, start=start, end=end)]


def test_what_is_put_is_read_whole_and_in_parts(store: ArtifactStore) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 256 * 2 + 3)
    store.put("videos/a/1/video", data)
    assert store.get("videos/a/1/video") == data
    chunks = asyncio.run(read(store, "videos/a/1/video", 5, len(data)))
    assert b"".join(chunks) == data[5:] and max(map(len, chunks)) == CHUNK_BYTES
    stat = store.stat("videos/a/1/video")
    assert stat is not None and stat.size == len(data)
    store.put("videos/a/1/video", data[:-1])
    changed = store.stat("videos/a/1/video")
    assert changed is not None and changed.etag != stat.etag


def test_what_is_not_there_is_missing(store: ArtifactStore) -> None:
    assert store.stat("nothing") is None
    with pytest.raises(MissingArtifactError, match="nothing"):
        store.get("nothing")
    with pytest.raises(MissingArtifactError, match="nothing"):
        asyncio.run(read(store, "nothing", 0, 10))
    with pytest.raises(MissingArtifactError, match="videos/b"):
        store.copy("videos/b", "videos/c")
    store.delete("nothing")
    store.delete_under("nothing")


def test_a_prefix_is_copied_and_removed_alone(store: ArtifactStore) -> None:
    for key in ("shelf/one/1/video", "shelf/one/1/thumbnail", "shelf/one/2/video", "shelf/one_more/1/video"):
        store.put(key, key.encode())
    store.copy("shelf/one/1/video", "shelf/other/1/video")
    assert store.get("shelf/other/1/video") == b"shelf/one/1/video" and sorted(store.folders("shelf")) == ["one", "one_more", "other"]
    store.delete_under("shelf/one")
    assert store.stat("shelf/one/1/video") is None and store.stat("shelf/one/2/video") is None
    assert store.get("shelf/one_more/1/video") == b"shelf/one_more/1/video" and store.get("shelf/other/1/video")
    assert store.keys_under("shelf/one") == [] and len(store.keys_under("shelf")) == 2


def test_a_bucket_serves_by_itself_and_a_folder_does_not(s3: str, tmp_path: Path) -> None:
    import httpx

    folder, bucket = ArtifactStore(f"file://{tmp_path}"), ArtifactStore(s3)
    bucket.put("videos/a/1/video", b"an mp4")
    link = bucket.link("videos/a/1/video")
    assert link is not None and httpx.get(link, trust_env=False).content == b"an mp4"
    assert bucket.origin is not None and link.startswith(f"{bucket.origin}/") and folder.origin is None
    assert folder.link("videos/a/1/video") is None and folder.is_local and not bucket.is_local


def test_a_place_that_is_none_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"s3://BUCKET"):
        ArtifactStore("ftp://somewhere")


def test_a_store_that_cannot_be_used_is_told_as_such_and_names_no_folder(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    store.put("steps/a", b"x")
    with pytest.raises(StoreUnavailableError) as told:
        store.put("steps/a/b", b"x")  # a file is where a folder would have to be
    assert str(tmp_path) not in told.value.message


@contextmanager
def answering(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """A bucket whose server answers everything like this, as S3 does."""

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    for method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
        setattr(Answer, f"do_{method}", Answer.answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    for name, value in (access | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}).items():
        monkeypatch.setenv(name, value)
    try:
        yield ArtifactStore("s3://bucket/prefix")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (401, "Unauthorized"),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (400, "AuthorizationHeaderMalformed"),
    ],
)
def test_what_does_not_pass_by_itself_is_told_apart(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(status, code, monkeypatch) as store:
        for ask in (
            lambda: store.put("videos/a", b"x"),
            lambda: store.get("videos/a"),
            lambda: store.copy("videos/a", "videos/b"),
            lambda: store.delete("videos/a"),
            lambda: store.keys_under("videos"),
            lambda: store.check("videos/a"),
        ):
            with pytest.raises(StoreRefusedError) as told:
                ask()
            assert "bucket" not in told.value.message and told.value.code == "store_refused"


def test_an_artifact_that_is_not_there_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404, "NoSuchKey", monkeypatch) as store:
        assert store.stat("videos/a") is None
        with pytest.raises(MissingArtifactError):
            store.get("videos/a")
        with pytest.raises(StoreRefusedError):
            store.put("videos/a", b"x")


@pytest.mark.parametrize("number", [1, 13, 30])
def test_a_folder_that_may_not_be_written_refuses(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*args: object) -> None:
        raise GenericError(f"Generic LocalFileSystem error: Unable to create dir: {os.strerror(number)} (os error {number})")

    store = ArtifactStore(f"file://{tmp_path}")
    store.check("videos/a/1")
    assert store.keys_under("videos") == []
    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(StoreRefusedError):
        store.check("videos/a/1")


@pytest.mark.parametrize(
    "passing", ["status code: 503: SlowDown", "No space left on device (os error 28)", "connection reset (os error 104)"]
)
def test_what_may_pass_is_to_be_tried_again(passing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*args: object) -> None:
        raise GenericError(passing)

    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(StoreUnavailableError) as told:
        ArtifactStore(f"file://{tmp_path}").put("videos/a", b"x")
    assert type(told.value) is StoreUnavailableError
