"""uploaded bytes -> a sound that is known to be one -> samples of the asked rate and length, in stereo

The bytes themselves are read in the sandbox, by `hearing`; what comes from there is numbers and samples.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import isfinite
from typing import cast

import av
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aiprod_components.errors import InvalidMediaError
from aiprod_components.media.footage import FIELD as FOOTAGE_FIELD
from aiprod_components.media.footage import probe_footage
from aiprod_components.media.hearing import MAX_CHANNELS, MAX_SAMPLE_RATE, MAX_SAMPLES
from aiprod_components.media.sandbox import CHECKING, READING, Answers, Task, ask, lost
from aiprod_components.values import Footage, Sound

FIELD = "sound"  # whose sound it is once it was checked
REMEDY = "make it shorter, or save it again as wav"
STEREO = 2
PAUSE = 0.05  # seconds between two parts that are silence; less is how coarse timestamps are
# Kind of samples -> as NumPy has them, what silence is, and how far it is from there to the loudest.
KINDS: dict[str, tuple[type, float, float]] = {
    "u8": (np.uint8, 128.0, 128.0),
    "s16": (np.int16, 0.0, 2.0**15),
    "s32": (np.int32, 0.0, 2.0**31),
    "flt": (np.float32, 0.0, 1.0),
    "dbl": (np.float64, 0.0, 1.0),
}
Samples = Float[np.ndarray, "_ _"]
Heard = tuple[Samples, str, int, float]  # of each channel; their layout, so many a second, from when on


def check_sound(data: bytes, *, field: str) -> Sound:
    """Reads an upload through and decodes its beginning. Raises InvalidMediaError naming the field and what is accepted."""
    task = sound_check(data, field=field)
    with ask([task], limits=CHECKING) as answers:
        return checked_sound(task, answers)


def sound_check(data: bytes, *, field: str) -> Task:
    return Task("check_sound", field, data, REMEDY, {})


def checked_sound(task: Task, answers: Answers) -> Sound:
    """What the sandbox found. Raises InvalidMediaError."""
    match answers.header(task):
        case {"seconds": float(seconds)} if isfinite(seconds) and seconds > 0:
            return Sound(task.data, seconds)
        case _:
            raise lost(task, "a length that is none")


def probe_sound(sound: Sound | Footage) -> float:
    """Seconds of sound, 0 for none. What was checked knows it; other is checked here."""
    if isinstance(sound, Footage):
        return probe_footage(sound).sound_seconds
    return cast(float, check_sound(sound.data, field=FIELD).seconds) if sound.seconds is None else sound.seconds


def read_sound(
    sound: Sound | Footage, *, sample_rate: int, start: float, seconds: float, watch: Callable[[], None] = lambda: None
) -> Float[Tensor, "2 N"]:
    """`seconds` of it from second `start` on, of so many samples a second, in stereo: what is missing is silent.

    Raises InvalidMediaError where it is damaged. `watch` is called now and then, and may raise to end the work.
    """
    field = FOOTAGE_FIELD if isinstance(sound, Footage) else FIELD
    task = Task("read_sound", field, sound.data, REMEDY, {})
    with ask([task], limits=READING) as answers:
        parts = list(_parts(task, answers, watch))
    _check_alike(parts, task=task)
    cut = np.zeros((STEREO, round(seconds * sample_rate)), np.float32)
    for run in _runs(parts):
        _place(_resampled(run, sample_rate=sample_rate, task=task), cut, first=round((run[0][3] - start) * sample_rate))
    return torch.from_numpy(cut)


def _place(heard: Samples, cut: Samples, *, first: int) -> None:
    """Puts into `cut` what of `heard` is in it when that begins at sample `first` of it, which may be before or behind it."""
    begin, end = max(first, 0), min(first + heard.shape[1], cut.shape[1])
    if begin < end:
        cut[:, begin:end] = heard[:, begin - first : end - first]


def _parts(task: Task, answers: Answers, watch: Callable[[], None]) -> Iterator[Heard]:
    left = MAX_SAMPLES
    while True:
        match answers.header(task):
            case {"samples": 0}:
                return
            case {
                "samples": int(count),
                "channels": int(channels),
                "kind": str(kind),
                "planar": bool(planar),
                "layout": str(layout),
                "rate": int(rate),
                "at": float(at),
            } if kind in KINDS and 0 < channels <= MAX_CHANNELS and 0 < rate <= MAX_SAMPLE_RATE and 0 < count * channels <= left:
                left -= count * channels
                values = _floats(task, answers, kind=kind, shape=(channels, count) if planar else (count, channels))
                yield values if planar else values.T, layout, rate, at
            case _:
                raise lost(task, "samples that are none")
        watch()


def _floats(task: Task, answers: Answers, *, kind: str, shape: tuple[int, int]) -> Samples:
    """From -1 to 1."""
    dtype, silence, loudest = KINDS[kind]
    raw = np.empty(shape, dtype)
    answers.fill(task, raw.reshape(-1).view(np.uint8).data)
    return np.nan_to_num((raw.astype(np.float64) - silence) / loudest).clip(-1, 1).astype(np.float32)


def _check_alike(parts: list[Heard], *, task: Task) -> None:
    if any(parts[0][1:3] != part[1:3] or len(parts[0][0]) != len(part[0]) for part in parts):
        raise InvalidMediaError(f"{task.field} changes its channels or its rate midway; {REMEDY}", field=task.field)


def _runs(parts: list[Heard]) -> list[list[Heard]]:
    """Parts that follow each other at once: where the file pauses, what comes after begins when it says."""
    runs: list[list[Heard]] = []
    end = 0.0
    for part in parts:
        samples, _, rate, at = part
        if not runs or at > end + PAUSE:
            runs.append([])
            end = at
        runs[-1].append(part)
        end += samples.shape[1] / rate
    return runs


def _resampled(run: list[Heard], *, sample_rate: int, task: Task) -> Samples:
    """In stereo."""
    _, layout, rate, _ = run[0]
    whole = np.concatenate([part[0] for part in run], axis=1)
    if len(whole) == 1:
        whole, layout = np.repeat(whole, STEREO, axis=0), "stereo"
    try:
        # Interleaved: PyAV takes no more than seven channels apart.
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(whole.T).reshape(1, -1), format="flt", layout=layout)
    except ValueError as error:
        raise lost(task, "channels that are none") from error
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=sample_rate)
    heard = [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate([np.zeros((STEREO, 0), np.float32), *heard], axis=1)
