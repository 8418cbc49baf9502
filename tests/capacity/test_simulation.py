"""models -> what becomes of their jobs: by hand, by queueing theory, and twice by two ways to simulate"""

import math
from dataclasses import replace

import numpy as np
import pytest

from deployments.capacity.events import run_events
from deployments.capacity.lines import run_lines
from deployments.capacity.model import Line, Machine, Model, Outcome, Visit
from deployments.capacity.simulate import simulate
from deployments.capacity.times import Overhead
from deployments.capacity.traffic import Columns, Traffic
from tests.capacity.lines import arrivals, poisson, tandem

SHARED = Model((Line("a", 2, machine=0), Line("b", 1, machine=0)), ((Visit(0, 2.0), Visit(1, 1.0, inputs=(0,))),), (0,))


def both(model: Model, columns: Columns) -> Outcome:
    """What both ways to simulate say, who must agree."""
    fast, exact = run_lines(model, columns), run_events(model, columns)
    assert fast is not None
    np.testing.assert_allclose(fast.done, exact.done, rtol=1e-9)
    np.testing.assert_allclose(fast.waited, exact.waited, atol=1e-6)
    np.testing.assert_allclose(fast.busy, exact.busy, rtol=1e-9)
    np.testing.assert_allclose(np.concatenate(fast.ran), np.concatenate(exact.ran), rtol=1e-9)
    assert fast.peak == exact.peak
    return fast


def test_a_line_of_stages_is_reckoned_exactly() -> None:
    outcome = both(tandem([1.0, 3.0, 0.5], [1, 2, 1], hop=0.25), arrivals([0.0, 0.0, 0.0]))
    # Stage 1 ends at 1.25, 2.25, 3.25; stage 2 takes two at a time, so the third waits from 3.5 on for the first, who ends at 4.5.
    assert outcome.done.tolist() == [1.25 + 3.25 + 0.75, 2.25 + 3.25 + 0.75, 4.5 + 3.0 + 0.75]
    assert outcome.waited.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert outcome.busy.tolist() == [3.0, 9.0, 1.5]


def test_who_is_ready_first_is_served_first() -> None:
    slow, fast = (Visit(0, 5.0), Visit(2, 1.0, inputs=(0,))), (Visit(1, 1.0), Visit(2, 1.0, inputs=(0,)))
    model = Model(tuple(Line(name, 1) for name in "abc"), (slow, fast), (0, 0))
    outcome = both(model, arrivals([0.0, 1.0, 1.5], kind=[0, 1, 1]))
    assert outcome.done.tolist() == [6.0, 3.0, 4.0]


def test_a_task_waits_for_all_that_feeds_it() -> None:
    job = (Visit(0, 1.0), Visit(1, 4.0), Visit(2, 1.0, inputs=(0, 1)))
    assert both(Model(tuple(Line(name, 1) for name in "abc"), (job,), (0,)), arrivals([2.0])).done.tolist() == [7.0]


def test_overhead_is_before_between_and_after() -> None:
    model = tandem([1.0], [1], overhead=Overhead(before=0.1, held=0.2, after=0.4))
    assert both(model, arrivals([0.0])).done == pytest.approx([1.7])


@pytest.mark.parametrize("replicas", [1, 3])
def test_exponential_services_wait_as_erlang_says(replicas: int) -> None:
    """M/M/c: lognormal spread cannot be exponential, so services are drawn here and given as the model's."""
    rate, mean = 0.6 * replicas, 1.0
    columns = poisson(rate, 300_000 / replicas)
    rng = np.random.default_rng(2)
    drawn = rng.exponential(mean, size=len(columns))

    class Drawn(Model):
        def service(self, columns: Columns) -> list[list[np.ndarray]]:
            return [[drawn]]

    outcome = run_lines(Drawn((Line("a", replicas),), ((Visit(0, mean),),), (0,)), columns)
    assert outcome is not None
    load = rate * mean
    last = load**replicas / math.factorial(replicas) / (1 - load / replicas)
    waits = last / (sum(load**k / math.factorial(k) for k in range(replicas)) + last)  # Erlang's C
    assert outcome.waited[0].mean() == pytest.approx(waits * mean / (replicas - load), rel=0.05)


def test_constant_services_wait_half_as_long() -> None:
    """M/D/1, by Pollaczek and Khinchine."""
    outcome = simulate(tandem([1.0], [1]), poisson(0.6, 200_000))
    assert outcome.waited[0].mean() == pytest.approx(0.6 / (2 * 0.4), rel=0.05)


def test_spread_keeps_the_mean() -> None:
    outcome = simulate(tandem([2.0], [10_000], spread=0.5), poisson(10, 2000))
    assert outcome.busy[0] / len(outcome.columns) == pytest.approx(2.0, rel=0.02)
    assert np.log(outcome.latency).std() == pytest.approx(0.5, rel=0.05)


def test_both_ways_agree_on_any_traffic() -> None:
    classes = [
        {"name": "a", "request": {}, "arrival": {"kind": "poisson", "per_second": 2.0}, "cancels": 0.3, "cancel_after": 4},
        {"name": "b", "request": {}, "arrival": {"kind": "bursts", "every": 20, "size": 15}},
    ]
    columns = Traffic.model_validate({"name": "x", "seconds": 300, "classes": classes}).columns()
    first = (Visit(0, 0.4, 0.3, hop=0.01), Visit(1, 1.1, 0.3, (0,), 0.01), Visit(3, 0.3, 0.1, (1,), 0.01))
    second = (Visit(0, 0.2, 0.2), Visit(0, 0.3, 0.2), Visit(2, 2.5, 0.2, (0,), 0.02), Visit(3, 0.5, 0.1, (1, 2), 0.01))
    lines = tuple(Line(name, count) for name, count in zip("abcd", (2, 3, 4, 2), strict=True))
    outcome = both(Model(lines, (first, second), (0, 1), Overhead(before=0.1, held=0.1, after=0.1)), columns)
    assert 0 < (~outcome.completed).sum() < 200 and outcome.waited.sum(axis=1).all()


def test_a_cancelled_job_leaves_the_line() -> None:
    outcome = both(tandem([2.0], [1]), arrivals([0.0, 0.5, 1.0], cancelled_at={1: 1.5}))
    assert np.isnan(outcome.done[1])
    assert outcome.done[[0, 2]].tolist() == [2.0, 4.0]
    assert outcome.waited[0].tolist() == [0.0, 1.0, 1.0]


def test_a_cancelled_job_frees_its_replica() -> None:
    outcome = both(tandem([2.0], [1]), arrivals([0.0, 0.0], cancelled_at={0: 0.5}))
    assert outcome.done[1] == 2.5
    assert outcome.busy.tolist() == [2.5]


def test_a_cancelled_job_frees_its_slot() -> None:
    outcome = run_events(tandem([2.0, 2.0], [5, 5], slots=1), arrivals([0.0, 0.0, 0.0], cancelled_at={0: 1.0, 1: 0.5}))
    assert outcome.done[2] == 5.0 and outcome.for_slot.tolist() == [0.0, 0.0, 1.0]


def test_a_job_that_was_finished_before_it_is_cancelled_was_completed() -> None:
    assert both(tandem([2.0], [1]), arrivals([0.0], cancelled_at={0: 2.5})).done.tolist() == [2.0]


def test_slots_bound_the_jobs_at_work() -> None:
    model = tandem([1.0, 1.0], [9, 9], slots=2)
    assert run_lines(model, arrivals([0.0] * 5)) is None
    outcome = simulate(model, arrivals([0.0] * 5))
    assert outcome.done.tolist() == [2.0, 2.0, 4.0, 4.0, 6.0] and outcome.peak == 2


def test_each_family_has_slots_of_its_own() -> None:
    model = Model((Line("a", 9), Line("b", 9)), ((Visit(0, 1.0),), (Visit(1, 1.0),)), (0, 1), slots=1)
    assert run_events(model, arrivals([0.0] * 4, kind=[0, 0, 0, 1])).done.tolist() == [1.0, 2.0, 3.0, 1.0]


def test_a_stage_that_is_visited_again_is_simulated_in_the_order_of_time() -> None:
    chunks = (Visit(0, 1.0), Visit(1, 1.0, inputs=(0,)), Visit(0, 1.0, inputs=(1,)))
    model = Model((Line("a", 1), Line("b", 1)), (chunks,), (0,))
    assert run_lines(model, arrivals([0.0])) is None
    # The second job's first visit comes between the first job's two.
    assert simulate(model, arrivals([0.0, 0.5])).done.tolist() == [3.0, 4.0]


def test_on_one_core_two_take_twice_as_long() -> None:
    model = replace(SHARED, machines=(Machine(1.0),))
    assert simulate(model, arrivals([0.0])).done.tolist() == [3.0]
    # Both in stage a until 4, then one after the other through b, while nobody else is there.
    assert simulate(model, arrivals([0.0, 0.0])).done.tolist() == [5.0, 6.0]


def test_on_two_cores_two_threads_are_in_nobodys_way() -> None:
    model = replace(SHARED, machines=(Machine(2.0),))
    assert simulate(model, arrivals([0.0, 0.0])).done.tolist() == [3.0, 4.0]


def test_who_comes_later_slows_only_what_is_left() -> None:
    lines = (Line("a", 2, machine=0),)
    model = Model(lines, ((Visit(0, 2.0),),), (0,), machines=(Machine(1.0),))
    # Alone until 1; then two share the core, and the first is over when it has had one second's worth more.
    assert simulate(model, arrivals([0.0, 1.0])).done.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("exponent", "ends"), [(0.0, 2.0), (1.0, 4.0), (2.0, 8.0)])
def test_threads_hinder_each_other_as_the_exponent_says(exponent: float, ends: float) -> None:
    model = Model((Line("a", 2, machine=0),), ((Visit(0, 2.0),),), (0,), machines=(Machine(1.0, exponent),))
    assert simulate(model, arrivals([0.0, 0.0])).done == pytest.approx([ends, ends])


def test_who_is_cancelled_gives_its_cores_back() -> None:
    model = Model((Line("a", 2, machine=0),), ((Visit(0, 2.0),),), (0,), machines=(Machine(1.0),))
    assert simulate(model, arrivals([0.0, 0.0], cancelled_at={1: 1.0})).done[0] == pytest.approx(2.5)
