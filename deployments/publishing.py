"""finished video -> signed -> its files in the artifact store: the video itself, a thumbnail, a sprite sheet; a sound alone: itself"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from aiprod_components.errors import ConfigError
from aiprod_components.media.encode import SOUND_TYPES
from aiprod_components.media.thumbnails import spritesheet, thumbnail
from aiprod_components.values import Video
from deployments.artifacts import ArtifactStore, file_key
from deployments.orders import Publish, Published
from deployments.settings import ProvenanceArgs

if TYPE_CHECKING:
    from deployments.provenance import Signer

SMALL = {"thumbnail": "image/webp", "spritesheet": "image/jpeg"}


def publish(video: Video, *, store: ArtifactStore, to: Publish) -> Published:
    """The video goes last: where it is, everything is."""
    data = video.data
    if to.provenance is not None:
        data = sign_video(data, video.media_type, to=to, by=to.provenance)
    files = {**_pictures(video), "video": (video.media_type, data)}
    for name, (_, content) in files.items():
        store.put(file_key(to.prefix, name), content)
    return Published(to.prefix, {name: (kind, len(content)) for name, (kind, content) in files.items()}, video.frames_digest)


def _pictures(video: Video) -> dict[str, tuple[str, bytes]]:
    """Small ones, where there is something to be seen."""
    if video.media_type in SOUND_TYPES.values():
        return {}
    made = {"thumbnail": thumbnail(video.data, video.media_type), "spritesheet": spritesheet(video.data, video.media_type)}
    return {name: (SMALL[name], content) for name, content in made.items()}


def check_provenance(args: ProvenanceArgs) -> None:
    """Raises ConfigError when these files cannot sign, or what signs is not installed."""
    try:
        _signer(args.certificate, args.key)
    except ImportError as error:
        raise ConfigError("provenance needs c2pa-python; install it with: pip install 'aiprod[c2pa]'") from error


def sign_video(data: bytes, media_type: str, *, to: Publish, by: ProvenanceArgs) -> bytes:
    from deployments.provenance import Origin  # its library is an extra

    return _signer(by.certificate, by.key).sign(data, media_type, title=to.title, origin=Origin(to.family, to.pipeline))


@lru_cache(maxsize=4)
def _signer(certificate: str, key: str) -> "Signer":
    from deployments.provenance import Signer

    return Signer(Path(certificate), Path(key))
