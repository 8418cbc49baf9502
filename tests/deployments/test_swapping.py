"""one replica, without a cluster: other weights in the place of those that it has, between two calls"""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError

from aiprod_components.errors import CheckpointError, WeightsChangedError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.families.stage_weights import with_weights
from aiprod_components.plan import Call
from aiprod_components.stages import AIPROD_STAGES
from aiprod_components.stages.base import Progress
from deployments import stage as module
from deployments.jobs.records import Claim
from deployments.orders import ForJob, Order
from deployments.settings import FamilyArgs
from deployments.stage import StageReplica
from deployments.swapping import Swapper
from tests.families.other_weights import perturbed

FAMILY = make_family("miniature")


@dataclass(frozen=True)
class Ask(Call[str]):
    """Which weights are served, after so many seconds."""

    stage = "denoiser"
    seconds: float = 0.0


class Teller:
    """In the denoiser's place: says where its network lies."""

    made: ClassVar[list[str]] = []
    fails: Callable[[Family], bool] = staticmethod(lambda family: False)
    there = 0

    def __init__(self, family: Family, *, device: torch.device) -> None:
        Teller.made.append(str(family.folder_of("denoiser")))
        if Teller.fails(family):
            raise torch.OutOfMemoryError("no room")
        self._folder, self.thread = str(family.folder_of("denoiser")), threading.current_thread().name
        Teller.there += 1

    def run(self, call: Ask, progress: Progress) -> str:
        time.sleep(call.seconds)
        return self._folder

    def __del__(self) -> None:
        if hasattr(self, "_folder"):
            Teller.there -= 1


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> StageReplica:
    monkeypatch.setitem(AIPROD_STAGES, "denoiser", Teller)
    monkeypatch.setattr(Teller, "made", [])
    monkeypatch.setattr(Teller, "fails", staticmethod(lambda family: False))
    gc.collect()  # what earlier tests left
    monkeypatch.setattr(Teller, "there", 0)
    return StageReplica(FamilyArgs(name="miniature"), "denoiser")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturbed(tmp_path_factory.mktemp("weights") / "other", "denoiser")


async def asked(replica: StageReplica, seconds: float = 0.0) -> str:
    return (await replica.run(Order("ask", Ask(seconds)))).open()


def for_weights(fingerprint: str) -> ForJob:
    return ForJob(Claim("video_1", 1, "a"), "file:///nowhere", fingerprint, "identity", "scope")


def test_calls_that_are_there_end_on_the_old_weights_and_the_next_begin_on_the_new(replica: StageReplica, other: Path) -> None:
    async def swap() -> list[str]:
        await replica.reconfigure({"threads": 1})
        before = [asyncio.ensure_future(asked(replica, 0.2)) for _ in range(2)]
        await asyncio.sleep(0.05)
        await replica.reconfigure({"threads": 1, "weights": str(other)})
        assert all(call.done() for call in before)
        return [*[await call for call in before], await asked(replica)]

    *before, after = asyncio.run(swap())
    assert set(before) == {str(FAMILY.weights)} and after == str(other)
    assert replica._swapper.stage.thread.startswith("denoiser") and Teller.there == 1


def test_a_call_is_for_weights_and_no_others_even_if_they_change_while_it_waits(
    replica: StageReplica, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(job: ForJob, *, step: str) -> None: ...

    monkeypatch.setattr(replica, "_reporter", nobody)

    async def late() -> WeightsChangedError:
        family = replica._swapper.prepare(str(other))
        busy = asyncio.ensure_future(asked(replica, 0.2))
        await asyncio.sleep(0.05)
        replica._thread.submit(replica._swapper.take, family, str(other))
        with pytest.raises(WeightsChangedError, match="planned anew") as caught:
            await replica.run(Order("ask", Ask(), for_weights(FAMILY.fingerprint)))
        assert busy.done()
        return caught.value

    refusal = asyncio.run(late())
    assert (refusal.stage, refusal.fingerprint) == ("denoiser", with_weights(FAMILY, "denoiser", other).fingerprint)
    assert asyncio.run(replica.fingerprint()) == FAMILY.fingerprint != refusal.fingerprint


@pytest.mark.parametrize("said", ["a folder that is not there", "an option that is none", "weights that there is no room for"])
def test_a_replica_that_cannot_take_new_weights_serves_on_and_says_so(
    said: str, replica: StageReplica, other: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked_for: dict[str, dict[str, Any]] = {
        "a folder that is not there": {"weights": "/nowhere/at/all"},
        "an option that is none": {"wights": str(other)},
        "weights that there is no room for": {"weights": str(other)},
    }
    monkeypatch.setattr(Teller, "fails", staticmethod(lambda family: family.folder_of("denoiser") == other))
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "_replica_context", lambda: "Serve's")
    monkeypatch.setattr(module, "tell_weights", lambda *what: told.append(what))

    async def spoil() -> str:
        await replica.reconfigure({})
        with caplog.at_level(logging.ERROR):
            await replica.reconfigure(asked_for[said])
        await replica.check_health()
        return await asked(replica)

    assert asyncio.run(spoil()) == str(FAMILY.weights)
    assert any("goes on with the weights that it has" in record.message for record in caplog.records)
    family, stage, last = told[-1]
    assert (family, stage, last.fingerprint) == ("miniature", "denoiser", FAMILY.fingerprint) and "/nowhere/at" not in last.fault
    asyncio.run(replica.reconfigure({"threads": 1}))
    assert told[-1][2].fault is None


def test_a_new_replica_says_at_once_that_it_cannot_have_its_weights(replica: StageReplica) -> None:
    with pytest.raises(CheckpointError, match="/nowhere is no folder"):
        asyncio.run(replica.reconfigure({"weights": "/nowhere"}))
    with pytest.raises(ValidationError, match="weight"):
        asyncio.run(replica.reconfigure({"weight": "x"}))


@pytest.mark.parametrize(("said", "serves_on"), [(None, True), ({}, False)])
def test_a_replica_that_was_given_no_config_serves_already_when_its_first_comes(
    said: dict[str, Any] | None, serves_on: bool, replica: StageReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(_deployment_config=SimpleNamespace(user_config=said), replica_id=SimpleNamespace(unique_id="a"))
    monkeypatch.setattr(module.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(module, "tell_weights", lambda *what: None)
    begun = StageReplica(FamilyArgs(name="miniature"), "denoiser")
    with nullcontext() if serves_on else pytest.raises(CheckpointError):
        asyncio.run(begun.reconfigure({"weights": "/nowhere"}))
    assert asyncio.run(asked(begun)) == str(FAMILY.weights)


def test_the_same_weights_are_not_loaded_again(replica: StageReplica, other: Path) -> None:
    for threads in (1, 2):
        asyncio.run(replica.reconfigure({"threads": threads, "weights": str(other)}))
    assert Teller.made == [str(FAMILY.weights), str(other)]


class Cramped(Swapper):
    """A device without room for two."""

    def _has_room(self) -> bool:
        return False


def cramped(fails: Callable[[Family], bool]) -> Cramped:
    swapper = Cramped(FAMILY, "denoiser", device=torch.device("cpu"), ranks=None)
    swapper.take(FAMILY, None)
    Teller.fails = staticmethod(fails)
    return swapper


def test_without_room_for_two_the_old_weights_go_before_the_new_ones_come(replica: StageReplica, other: Path) -> None:
    there: list[int] = []
    before = Teller.there
    swapper = cramped(lambda family: there.append(Teller.there - before) or False)
    swapper.take(swapper.prepare(str(other)), str(other))
    assert there == [0] and swapper.weights == str(other)


def test_without_room_for_two_the_old_weights_come_back_when_the_new_ones_cannot_be_loaded(replica: StageReplica, other: Path) -> None:
    swapper = cramped(lambda family: family.folder_of("denoiser") == other)
    with pytest.raises(torch.OutOfMemoryError):
        swapper.take(swapper.prepare(str(other)), str(other))
    assert swapper.stage.run(Ask(), None) == str(FAMILY.weights) and swapper.failure is None
    assert (swapper.weights, swapper.fingerprint) == (None, FAMILY.fingerprint)


def test_a_replica_whose_old_weights_do_not_come_back_is_broken(replica: StageReplica, other: Path) -> None:
    swapper = cramped(lambda family: True)
    with pytest.raises(torch.OutOfMemoryError):
        swapper.take(swapper.prepare(str(other)), str(other))
    assert swapper.failure is not None
    replica._swapper = swapper
    with pytest.raises(RuntimeError, match="stage denoiser is broken"):
        asyncio.run(replica.check_health())
