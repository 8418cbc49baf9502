"""bytes in a folder and in a bucket: the same answers from both"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiprod_components.errors import ConfigError, MissingArtifactError, StoreUnavailableError
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
