"""ranks that die, hang, fail or are asked too much -> an error soon, and never a wait without end"""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from aiprod_components.errors import InvalidRequestError, UnavailableError
from aiprod_components.stages.ranks import Place, RankGroup, Ranks, Recipe
from tests.ltx2.rank_processes import CPU, RankProcess

SOON = 30.0  # seconds, of a machine that does much else


class Adder:
    """Sums over the ranks; numbers of certain values do harm."""

    def __init__(self, device: torch.device) -> None:
        self._rank = 0

    def share(self, group: dist.ProcessGroup) -> None:
        self._rank = group.rank()

    def add(self, numbers: list[Tensor], *, label: str) -> tuple[Tensor, str]:
        if label == "refused":
            raise InvalidRequestError("that is no label")
        if label == f"fails on {self._rank}":
            raise KeyError(label)
        total = torch.stack(numbers).sum(dim=0) * (self._rank + 1)
        dist.all_reduce(total)
        return total, label


@contextmanager
def two(recipe: Recipe, *, timeout: float = 60.0) -> Iterator[tuple[RankGroup, RankProcess]]:
    started: list[RankProcess] = []

    def launch(recipe: Recipe, place: Place) -> RankProcess:
        started.append(RankProcess(recipe, place))
        return started[0]

    group = RankGroup(recipe, Ranks(2, launch, timeout), device=CPU)
    try:
        yield group, started[0]
    finally:
        group.close()
        started[0].wait_for_end()


def add(group: RankGroup, label: str = "fine") -> tuple[Tensor, str]:
    return group.together("add", [torch.ones(3)] * 2, label=label)


def test_all_ranks_are_given_the_same_and_rank_0_answers() -> None:
    with two(Adder) as (group, _):
        total, label = add(group)
        halves = group.together("add", [torch.full((2, 2), 0.5, dtype=torch.bfloat16), torch.tensor([[True, False]] * 2)], label="kinds")[0]
    assert total.tolist() == [6.0, 6.0, 6.0]  # 2 of rank 0, 4 of rank 1
    assert label == "fine"
    assert halves.tolist() == [[4.5, 1.5], [4.5, 1.5]]


def test_what_all_ranks_refuse_leaves_them_together() -> None:
    with two(Adder) as (group, _):
        with pytest.raises(InvalidRequestError):
            add(group, "refused")
        assert add(group)[0].tolist() == [6.0, 6.0, 6.0]
        assert group.failure is None


def test_ranks_leave_in_order() -> None:
    with two(Adder) as (group, follower):
        add(group)
    assert group.failure is None
    assert not dist.is_initialized()
    with pytest.raises(UnavailableError, match="the ranks have ended"):
        add(group)
    assert not follower.is_alive


def test_a_rank_that_dies_while_nobody_asks_is_noticed() -> None:
    with two(Adder) as (group, follower):
        follower.signal(signal.SIGKILL)
        assert within(SOON, lambda: group.failure is not None)
        with pytest.raises(UnavailableError, match="rank 1 has ended"):
            add(group)


def test_a_rank_that_dies_in_a_call_ends_the_call() -> None:
    with two(Adder, timeout=600.0) as (group, follower):
        follower.signal(signal.SIGSTOP)
        threading.Timer(0.5, follower.signal, [signal.SIGKILL]).start()
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            add(group)
        assert time.monotonic() - started < SOON
        assert group.failure is not None


def test_a_rank_that_hangs_is_waited_for_no_longer_than_the_timeout() -> None:
    with two(Adder, timeout=3.0) as (group, follower):
        add(group)
        follower.signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            add(group)
        assert time.monotonic() - started < SOON
        assert within(SOON, lambda: not follower.is_alive), "it is ended, stopped as it is"


@pytest.mark.parametrize(("rank", "error"), [(0, KeyError), (1, UnavailableError)])
def test_an_error_of_one_rank_alone_ends_them_all(rank: int, error: type[Exception]) -> None:
    with two(Adder) as (group, follower):
        with pytest.raises(error):
            add(group, f"fails on {rank}")
        assert group.failure is not None
        assert within(SOON, lambda: not follower.is_alive)


def test_a_rank_that_cannot_be_made_is_an_error_at_the_start() -> None:
    with pytest.raises(UnavailableError), two(Unmade):
        raise AssertionError("it was made")


class Unmade(Adder):
    """Can be made by rank 0 alone."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        if multiprocessing.parent_process() is not None:
            raise KeyError("not here")


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False
