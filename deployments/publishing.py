"""finished video -> signed -> its files in the artifact store: the video itself, a thumbnail, a sprite sheet"""

from functools import lru_cache
from pathlib import Path

from aiprod_components.media.thumbnails import spritesheet, thumbnail

from aiprod_components.values import Video
from deployments.artifacts import ArtifactStore, file_key
from deployments.orders import Publish, Published
from deployments.provenance import Signer

SMALL = {"thumbnail": "image/webp", "spritesheet": "image/jpeg"}


def publish(video: Video, *, store: ArtifactStore, to: Publish) -> Published:
    """The video goes last: where it is, everything is."""
    data = video.data
    if to.certificate is not None and to.key is not None:
        data = _signer(to.certificate, to.key).sign(data, video.media_type, title=to.title)
    files = {
        "thumbnail": (SMALL["thumbnail"], thumbnail(video.data, video.media_type)),
        "spritesheet": (SMALL["spritesheet"], spritesheet(video.data, video.media_type)),
        "video": (video.media_type, data),
    }
    for name, (_, content) in files.items():
        store.put(file_key(to.prefix, name), content)
    return Published(to.prefix, {name: (kind, len(content)) for name, (kind, content) in files.items()}, video.frames_digest)


@lru_cache(maxsize=4)
def _signer(certificate: str, key: str) -> Signer:
    return Signer(Path(certificate), Path(key))
