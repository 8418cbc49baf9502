"""a finished video -> what lies in the artifact store of it"""

from pathlib import Path

import pytest
import torch

from aiprod_components.media.encode import SOUND_TYPES, encode_mp4, encode_sound
from aiprod_components.values import Frames, Video, VideoShape, Waveform
from deployments.artifacts import ArtifactStore
from deployments.orders import Publish
from deployments.publishing import publish

TO = Publish("videos/video_1/1", "video_1", "miniature", "any")


def test_a_video_is_published_with_small_pictures_of_it(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    data = encode_mp4(Frames(torch.zeros(1, 5, 32, 32, 3, dtype=torch.uint8), 16.0))
    published = publish(Video(data, VideoShape(5, 32, 32, 16.0), "digest"), store=store, to=TO)
    assert {name: kind for name, (kind, _) in published.files.items()} == {
        "thumbnail": "image/webp",
        "spritesheet": "image/jpeg",
        "video": "video/mp4",
    }
    assert sorted(store.keys_under(TO.prefix)) == [f"{TO.prefix}/{name}" for name in ("spritesheet", "thumbnail", "video")]


@pytest.mark.parametrize("container", SOUND_TYPES)
def test_a_sound_is_published_alone(container: str, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    data = encode_sound(Waveform(torch.zeros(1, 2, 4800), 48_000), container=container)
    published = publish(Video(data, VideoShape(2, 0, 0, 20.0), "digest", SOUND_TYPES[container]), store=store, to=TO)
    assert published.files == {"video": (SOUND_TYPES[container], len(data))}
    assert store.keys_under(TO.prefix) == [f"{TO.prefix}/video"] and store.get(f"{TO.prefix}/video") == data
