"""one replica, without a cluster: its thread, its cancellation, its health"""

import asyncio
import gc
import threading
import time
from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError

from aiprod_components.errors import UnavailableError
from aiprod_components.plan import Call
from aiprod_components.stages import AIPROD_STAGES
from aiprod_components.stages.base import Progress
from deployments.envelope import Sealed
from deployments.orders import Order
from deployments.settings import FamilyArgs
from deployments.stage import StageReplica

STEP = 0.05  # seconds


@dataclass(frozen=True)
class Count(Call[Sealed]):
    """Work of so many steps."""

    stage = "counter"
    steps: int


@dataclass(frozen=True)
class Counted:
    built_in: str
    thread: str
    threads: int


class Counter:
    """A stage that counts to the call's number and says where it did."""

    done: int = 0
    fails: type[Exception] | None = None

    def __init__(self, family: object, *, device: torch.device) -> None:
        Counter.done = 0
        self.built_in = threading.current_thread().name

    def run(self, call: Count, progress: Progress) -> Counted:
        for step in range(call.steps):
            time.sleep(STEP)
            Counter.done = step + 1
            if Counter.fails is not None:
                raise Counter.fails("device lost")
            progress.advance(step + 1, call.steps)
        return Counted(self.built_in, threading.current_thread().name, torch.get_num_threads())


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> StageReplica:
    monkeypatch.setitem(AIPROD_STAGES, "counter", Counter)
    monkeypatch.setattr(Counter, "fails", None)
    return StageReplica(FamilyArgs(name="miniature"), "counter")


def test_a_receipt_says_who_ran_the_step_and_for_how_long(replica: StageReplica) -> None:
    (receipt,) = asyncio.run(replica.run(Order("count", Count(2), sent_at=time.time() - 1))).receipts
    assert (receipt.step, receipt.stage) == ("count", "counter") and receipt.replica.startswith("process-")
    assert receipt.run_seconds >= 2 * STEP and 1 <= receipt.queued_seconds < 1 + 2 * STEP + 10


def test_receipts_of_the_inputs_come_along(replica: StageReplica) -> None:
    async def two() -> Sealed:
        first = await replica.run(Order("first", Count(1)))
        return await replica.run(Order("second", Count(1)), first=first)

    assert [receipt.step for receipt in asyncio.run(two()).receipts] == ["first", "second"]


def test_threads_take_effect_in_the_thread_that_runs_the_stage(replica: StageReplica) -> None:
    async def counted(threads: int) -> Counted:
        await replica.reconfigure({"threads": threads})
        return (await replica.run(Order("count", Count(1)))).open()

    before = torch.get_num_threads()
    for threads in (3, 1, 2):
        result = asyncio.run(counted(threads))
        assert result.threads == threads and result.thread == result.built_in != threading.current_thread().name
    assert torch.get_num_threads() == before


def test_a_misspelt_user_config_is_refused(replica: StageReplica) -> None:
    with pytest.raises(ValidationError, match="thread"):
        asyncio.run(replica.reconfigure({"thread": 1}))


def test_a_cancelled_request_frees_its_replica_within_one_step(replica: StageReplica) -> None:
    async def cancel_then_run() -> None:
        long = asyncio.ensure_future(replica.run(Order("count", Count(1000))))
        while Counter.done < 2:
            await asyncio.sleep(STEP / 10)
        long.cancel()
        at_most = Counter.done + 1
        with pytest.raises(asyncio.CancelledError):
            await long
        stopped = Counter.done
        assert stopped <= at_most + 1
        await asyncio.sleep(3 * STEP)
        assert Counter.done == stopped  # the slot is free when it says so
        await replica.run(Order("count", Count(1)))

    asyncio.run(cancel_then_run())


def test_a_request_cancelled_twice_frees_its_replica_no_sooner(replica: StageReplica, caplog: pytest.LogCaptureFixture) -> None:
    async def cancel_twice() -> None:
        long = asyncio.ensure_future(replica.run(Order("count", Count(1000))))
        while Counter.done < 2:
            await asyncio.sleep(STEP / 10)
        for _ in range(2):
            long.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await long
        stopped = Counter.done
        await asyncio.sleep(3 * STEP)
        assert Counter.done == stopped

    asyncio.run(cancel_twice())
    gc.collect()  # a future whose exception nobody read complains when it goes
    assert not caplog.records


def test_a_request_cancelled_before_it_began_never_does(replica: StageReplica) -> None:
    async def cancel_the_waiting() -> None:
        first = asyncio.ensure_future(replica.run(Order("first", Count(4))))
        second = asyncio.ensure_future(replica.run(Order("second", Count(1000))))
        await asyncio.sleep(STEP)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await first).open().thread.startswith("counter")

    asyncio.run(cancel_the_waiting())
    assert Counter.done == 4


def test_health_is_answered_while_the_stage_works(replica: StageReplica) -> None:
    async def check() -> int:
        work = asyncio.ensure_future(replica.run(Order("count", Count(20))))
        while Counter.done < 1:
            await asyncio.sleep(STEP / 10)
        await replica.check_health()
        done = Counter.done
        work.cancel()
        await asyncio.wait([work])
        return done

    assert asyncio.run(check()) < 20


def test_a_replica_that_lost_its_device_says_that_it_is_broken(replica: StageReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "fails", torch.AcceleratorError)
    with pytest.raises(UnavailableError, match="try again"):
        asyncio.run(replica.run(Order("count", Count(1))))
    with pytest.raises(RuntimeError, match="AcceleratorError in step count"):
        asyncio.run(replica.check_health())
