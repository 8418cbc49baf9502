"""A family's watermark is in every frame before it is encoded and hashed; the invisible one is found again, and only where it is."""

import io
import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aiprod_components import watermarks
from aiprod_components.calls import DecodeVideo
from aiprod_components.errors import ConfigError
from aiprod_components.families import make_family
from aiprod_components.local import Silent
from aiprod_components.media.decode import decode_video
from aiprod_components.media.encode import encode_mp4
from aiprod_components.media.frames import digest_of
from aiprod_components.miniature.render import render_frames
from aiprod_components.miniature.world import SceneMix, sample_scene
from aiprod_components.models import tiling
from aiprod_components.stages.vae_decoder import VAEDecoder
from aiprod_components.values import Frames, Latents, VideoShape
from aiprod_components.watermarks import DETECTED, WATERMARKS, Invisible, Visible, Watermark, detect, make_watermark

MIX = SceneMix(two_objects=0.5, patterns=0.5, cameras=0.5, pairs="all")
MINIATURE = make_family("miniature")


class Counting:
    """Brightens each frame by its number."""

    def apply(self, frames: Tensor, *, start: int) -> Tensor:
        numbers = torch.arange(start, start + frames.shape[1], dtype=torch.int16)
        return (frames.short() + numbers[:, None, None, None]).clamp(0, 255).to(torch.uint8)


def clips(count: int, *, side: int, num_frames: int, seed: int = 0) -> Tensor:
    rng = random.Random(seed)
    scenes = [sample_scene(rng, mix=MIX) for _ in range(count)]
    return render_frames(scenes, num_frames=num_frames, height=side, width=side, frame_rate=16.0)


def shown(frames: Tensor) -> Tensor:
    """As they come out of this product's file."""
    return decode_video(encode_mp4(Frames(frames, 16.0)))


def recompressed(frames: Tensor, *, rate_factor: int) -> Tensor:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(16), options={"crf": str(rate_factor)})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", frames.shape[1], frames.shape[2]
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return decode_video(file.getvalue())


def psnr(frames: Tensor, others: Tensor) -> float:
    return 10 * math.log10(255**2 / float((frames.float() - others.float()).square().mean()))


@pytest.mark.parametrize("name", WATERMARKS)
@pytest.mark.parametrize("size", [(32, 32), (34, 66), (128, 128), (704, 1280)])
def test_a_mark_is_the_same_however_the_video_is_cut(name: str, size: tuple[int, int]) -> None:
    watermark = make_watermark(name)
    frames = torch.randint(0, 256, (1, 5, *size, 3), dtype=torch.uint8)
    before = frames.clone()
    marked = watermark.apply(frames, start=0)
    assert torch.equal(frames, before)
    assert (marked.shape, marked.dtype) == (frames.shape, torch.uint8)
    assert all(not torch.equal(one, other) for one, other in zip(marked[0], frames[0], strict=True))
    parts = [watermark.apply(frames[:, begin:end], start=begin) for begin, end in ((0, 1), (1, 1), (1, 4), (4, 5))]
    assert torch.equal(torch.cat(parts, dim=1), marked)


def test_the_decoder_marks_what_it_encodes_and_hashes() -> None:
    latents = Latents(torch.randn(1, 64, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    call = DecodeVideo((latents,), VideoShape(1, 128, 128, 16.0), 0, "png")
    device = torch.device("cpu")
    plain = VAEDecoder(MINIATURE, device=device).run(call, Silent())
    marked = VAEDecoder(replace(MINIATURE, watermark="visible"), device=device).run(call, Silent())
    before, after = (torch.from_numpy(np.array(Image.open(io.BytesIO(video.data))))[None, None] for video in (plain, marked))
    assert torch.equal(after, Visible().apply(before, start=0))
    assert marked.frames_digest == digest_of(Frames(after, 16.0)) != plain.frames_digest == digest_of(Frames(before, 16.0))


def test_frames_are_counted_through_chunks_and_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "POSITIONS_AT_ONCE", 12)
    seen: list[tuple[int, int]] = []

    class Noting(Counting):
        def apply(self, frames: Tensor, *, start: int) -> Tensor:
            seen.append((start, frames.shape[1]))
            return super().apply(frames, start=start)

    monkeypatch.setitem(WATERMARKS, "noting", Noting)
    latents = tuple(Latents(torch.randn(1, 64, 3, 2, 3)) for _ in range(2))
    call = DecodeVideo(latents, VideoShape(13, 32, 48, 16.0), 5, "mp4")
    VAEDecoder(make_family("miniature", watermark="noting"), device=torch.device("cpu")).run(call, Silent())
    assert [start for start, _ in seen] == [sum(length for _, length in seen[:index]) for index in range(len(seen))]
    assert sum(length for _, length in seen) == 13 and len(seen) == 4


def test_a_family_without_a_watermark_stays_as_it_is() -> None:
    assert MINIATURE.watermark is None
    assert make_family("miniature", watermark="visible").watermark == "visible"


@pytest.mark.parametrize("side", [32, 128, 704])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_visible_mark_is_small_in_its_corner_and_legible_on_any_ground(side: int, level: int) -> None:
    frames = torch.full((1, 1, side, side, 3), level, dtype=torch.uint8)
    marked = Visible().apply(frames, start=0)
    changed = (marked != frames).any(dim=-1)[0, 0]
    rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
    assert min(int(rows.min()), int(columns.min())) > side / 2
    assert max(int(rows.max()), int(columns.max())) < side - 1
    assert changed.float().mean() < (0.12 if side == 32 else 0.02)
    corner = marked[0, 0, int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1].float()
    assert corner.max() - corner.min() > 100


def test_the_visible_mark_lets_the_picture_through() -> None:
    frames = torch.zeros(1, 1, 128, 128, 3, dtype=torch.uint8)
    black, white = (Visible().apply(frames + level, start=0) for level in (0, 200))
    assert (white.int() - black.int()).min() > 60


@pytest.mark.parametrize(("side", "num_frames", "count"), [(128, 33, 4), (256, 9, 2)])
def test_the_invisible_mark_is_found_in_the_finished_video_and_only_there(side: int, num_frames: int, count: int) -> None:
    """33 frames of 128 x 128 is what the miniature family makes."""
    for clip in clips(count, side=side, num_frames=num_frames).split(1):
        marked = shown(Invisible("ours").apply(clip, start=0))
        plain = shown(clip)
        assert detect(marked, key="ours") > 3 * DETECTED
        assert abs(detect(marked, key="theirs")) < 4
        assert abs(detect(plain, key="ours")) < 4
        assert detect(marked[7:9], key="ours") > DETECTED  # two frames will do


def test_frames_without_the_mark_score_like_a_standard_normal_variable() -> None:
    plain = [shown(clip) for clip in clips(3, side=128, num_frames=9).split(1)]
    scores = torch.tensor([detect(frames, key=f"key {number}") for frames in plain for number in range(100)])
    assert abs(float(scores.mean())) < 0.2
    assert 0.85 < float(scores.std()) < 1.15
    assert float(scores.abs().max()) < DETECTED - 1.5


@pytest.mark.parametrize(("side", "rate_factor"), [(128, 23), (256, 28)])
def test_the_invisible_mark_outlives_another_encoder(side: int, rate_factor: int) -> None:
    for clip in clips(2, side=side, num_frames=17).split(1):
        marked = shown(Invisible("ours").apply(clip, start=0))
        assert detect(recompressed(marked, rate_factor=rate_factor), key="ours") > DETECTED


def test_the_invisible_mark_is_faint() -> None:
    frames = clips(3, side=128, num_frames=3)
    marked = torch.cat([Invisible("ours").apply(clip, start=0) for clip in frames.split(1)])
    assert psnr(marked, frames) > 42
    assert int((marked.int() - frames.int()).abs().max()) == watermarks.LEVELS


def test_frames_without_anything_in_them_have_no_mark() -> None:
    for level in (0, 255):
        assert detect(torch.full((2, 64, 64, 3), level, dtype=torch.uint8), key="ours") == 0.0


def test_the_invisible_marks_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIPROD_WATERMARK_KEY", raising=False)
    assert make_watermark("invisible") == Invisible("aiprod")
    monkeypatch.setenv("AIPROD_WATERMARK_KEY", "ours")
    assert make_watermark("invisible") == Invisible("ours")


def test_an_operators_own_watermark_is_named_by_its_module() -> None:
    made = cast(Counting, make_watermark(f"{__name__}:Counting"))
    assert type(made).__name__ == "Counting"
    assert isinstance(made, Watermark)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("visibel", "watermark 'visibel' is unknown; there are visible, invisible, or name one as package.module:factory"),
        ("", "watermark '' is unknown"),
        (":make", "watermark ':make' is unknown"),
        ("no_such_package.marks:make", "cannot be made .*No module named 'no_such_package'"),
        ("fractions:make_watermark", "cannot be made .*has no attribute 'make_watermark'"),
        ("fractions:Fraction", "is a Fraction, which has no apply"),
    ],
)
def test_a_watermark_that_is_none_is_told_at_start(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        VAEDecoder(make_family("miniature", watermark=name), device=torch.device("cpu"))
