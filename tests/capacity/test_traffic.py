"""traffic files and promises -> arrivals and limits, or what is wrong with them"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aiprod_components.errors import InvalidRequestError
from deployments.capacity.slo import parse_slo
from deployments.capacity.traffic import Traffic

STEADY: dict[str, Any] = {"name": "steady", "request": {"size": "64x64"}, "arrival": {"kind": "poisson", "per_second": 2.0}}
BURSTS: dict[str, Any] = {"name": "bursts", "request": {}, "arrival": {"kind": "bursts", "every": 30, "size": 5, "within": 2}}


def traffic(*classes: dict[str, Any], seconds: float = 100, seed: int = 1) -> Traffic:
    return Traffic.model_validate({"name": "test", "seconds": seconds, "seed": seed, "classes": classes or (STEADY,)})


def refused(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "traffic.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(InvalidRequestError) as caught:
        Traffic.load(path)
    assert caught.value.message.startswith(str(path))
    return caught.value.message.removeprefix(str(path))


def test_arrivals_are_the_same_whenever_they_are_asked_for() -> None:
    assert traffic().arrivals() == traffic().arrivals() != traffic(seed=2).arrivals()


def test_arrivals_come_in_order_and_are_numbered_so() -> None:
    coming = traffic(STEADY, BURSTS).arrivals()
    assert [each.number for each in coming] == list(range(len(coming)))
    assert all(before.at <= after.at for before, after in pairwise(coming))
    assert {each.class_name for each in coming} == {"steady", "bursts"}


def test_poisson_arrivals_are_as_many_as_they_should_be_and_independent() -> None:
    at = traffic(seconds=20_000).columns().at
    gaps = np.diff(at)
    assert len(at) / 20_000 == pytest.approx(2.0, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


def test_bursts_come_at_once_and_again() -> None:
    at = traffic(BURSTS).columns().at
    assert len(at) == 20
    assert all(begin <= each <= begin + 2 for begin, five in zip((0, 30, 60, 90), at.reshape(4, 5), strict=True) for each in five)


def test_recorded_arrivals_come_when_they_came() -> None:
    recorded = {**STEADY, "arrival": {"kind": "at", "seconds": [1.7, 0.4, 120.0]}}
    assert traffic(recorded).columns().at.tolist() == [0.4, 1.7]


def test_a_share_is_cancelled_after_a_while() -> None:
    coming = traffic({**STEADY, "cancels": 0.25, "cancel_after": 1.5}, seconds=2000).arrivals()
    ended = [each for each in coming if each.cancel_after is not None]
    assert {each.cancel_after for each in ended} == {1.5}
    assert len(ended) / len(coming) == pytest.approx(0.25, abs=0.03)


def test_a_class_that_is_added_leaves_the_others_as_they_were() -> None:
    assert [each.at for each in traffic(STEADY, BURSTS).arrivals() if each.class_name == "steady"] == [
        each.at for each in traffic().arrivals()
    ]


def test_fewer_seconds_are_the_beginning() -> None:
    assert traffic().columns(10).at.tolist() == [at for at in traffic().columns().at if at < 10]


@pytest.mark.parametrize("each", [STEADY, BURSTS, {**STEADY, "arrival": {"kind": "at", "seconds": [10.0, 20.0]}}])
def test_denser_traffic_is_the_same_pattern_faster(each: dict[str, Any]) -> None:
    plain, denser = traffic({**each}).columns().at, traffic({**each}).scaled(2).columns().at
    if each is STEADY:
        assert denser[: len(plain)] == pytest.approx(plain / 2)
    assert len(denser) == pytest.approx(2 * len(plain), rel=0.25) or len(denser) == len(plain) == 2
    assert denser.max() < 100


def test_no_two_arrivals_ask_for_the_same() -> None:
    bodies = [each.body for each in traffic().arrivals()]
    assert len({body["prompt"] for body in bodies}) == len({body["seed"] for body in bodies}) == len(bodies)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seconds": 0}, "seconds: Input should be greater than 0, got 0"),
        ({"second": 9}, "second is not known here; there is name, seconds, seed, classes"),
        ({"classes": []}, "classes: Tuple should have at least 1 item"),
        ({"classes": [STEADY, STEADY]}, "there are two classes steady; give each a name of its own"),
        ({"classes": [{**STEADY, "cancels": 2}]}, "classes.0.cancels: Input should be less than or equal to 1, got 2"),
        ({"classes": [{**STEADY, "request": {"prompt": "x"}}]}, "prompt is each request's own; leave it out"),
        ({"classes": [{**STEADY, "arrival": {"kind": "poisson", "per_second": -1}}]}, "per_second: Input should be greater than 0, got -1"),
        ({"classes": [{**STEADY, "arrival": {"kind": "poison"}}]}, "'poisson', 'bursts', 'at'"),
    ],
)
def test_a_fault_is_told_with_its_field_and_the_way_out(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    assert told in refused(tmp_path, {"name": "x", "seconds": 10, "classes": [STEADY], **change})


def test_what_is_no_traffic_is_told(tmp_path: Path) -> None:
    assert "seconds is missing; say it" in refused(tmp_path, {"name": "x", "classes": [STEADY]})
    assert "must say name, seconds, seed, classes" in refused(tmp_path, "- 1")
    assert "is not YAML" in refused(tmp_path, "{")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Traffic.load(tmp_path / "absent.yaml")


def test_more_arrivals_than_fit_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="fewer seconds"):
        traffic({**STEADY, "arrival": {"kind": "poisson", "per_second": 1e9}}).columns()


def test_a_promise_is_read() -> None:
    slo = parse_slo("p95=60s, p50=1.5min,p99.9=500ms,errors=1%")
    assert slo.latency == {0.95: 60.0, 0.5: 90.0, 0.999: 0.5} and slo.errors == 0.01
    assert str(parse_slo("p95=60,errors=0.02")) == "p95=60s,errors=0.02"


def test_what_is_beyond_a_promise_is_told() -> None:
    slo = parse_slo("p95=60s,p50=30s,errors=1%")
    assert slo.faults({0.95: 60.0, 0.5: 30.0}, errors=0.01) == []
    assert slo.faults({0.95: 61.0, 0.5: 3.0}, errors=0.02) == ["p95 is 61 s, above 60 s", "errors are 2.00%, above 1.00%"]
    assert slo.faults({0.95: float("nan"), 0.5: 3.0}) == ["p95 is nan s, above 60 s"]


@pytest.mark.parametrize("text", ["", "p95", "p95=", "p95=-1s", "p95=0s", "p95=60 parsecs", "p100=3s", "q95=3s", "errors=2", "errors=3s"])
def test_what_is_no_promise_is_refused_with_the_way_to_say_it(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^slo: "):
        parse_slo(text)
