"""finished steps -> found by their identity, forgotten with their files, and the longest unused first"""

import pytest
from sqlalchemy import update

from deployments.jobs.database import Database
from deployments.jobs.kept import Kept, KeptSteps, Unneeded
from deployments.jobs.tables import kept_steps


@pytest.fixture
def kept(database: Database) -> KeptSteps:
    return KeptSteps(database)


def unused(database: Database, seconds: dict[str, float]) -> None:
    """For each of these steps it is so long ago that it was of use."""
    with database.write() as connection:
        for identity, ago in seconds.items():
            change = update(kept_steps).where(kept_steps.c.identity == identity)
            connection.execute(change.values(used_at=kept_steps.c.used_at - ago))


def test_a_step_is_found_in_its_own_scope_alone(kept: KeptSteps) -> None:
    kept.record("ada", "a", "steps/ada/a", 10, {"kind": "Latents"})
    kept.record("eve", "a", "steps/eve/a", 11, {})
    assert kept.find("ada", ["a", "b"]) == {"a": Kept("steps/ada/a", 10, {"kind": "Latents"})}
    assert kept.find("eve", ["a"]) == {"a": Kept("steps/eve/a", 11, {})}
    assert kept.find("bob", ["a"]) == kept.find("ada", []) == {}


def test_of_two_results_of_one_step_the_later_counts(kept: KeptSteps) -> None:
    kept.record("ada", "a", "steps/1", 10, {})
    kept.record("ada", "a", "steps/2", 2**40, {"again": True})
    assert kept.find("ada", ["a"]) == {"a": Kept("steps/2", 2**40, {"again": True})}


def test_forgotten_steps_are_not_found(kept: KeptSteps) -> None:
    for scope, identity in (("ada", "a"), ("ada", "b"), ("ada", "c"), ("eve", "a")):
        kept.record(scope, identity, f"steps/{scope}/{identity}", 10, {})
    assert kept.forget("ada", ["a", "b", "x"]) == 2 and kept.forget("ada", []) == 0
    assert set(kept.find("ada", ["a", "b", "c"])) == {"c"} and set(kept.find("eve", ["a"])) == {"a"}


def test_locations_that_no_step_is_at_are_told(kept: KeptSteps) -> None:
    kept.record("ada", "a", "steps/ada/a", 10, {})
    kept.record("eve", "a", "steps/eve/a", 10, {})
    kept.forget("eve", ["a"])
    assert kept.unnamed(["steps/ada/a", "steps/eve/a", "steps/ada/b"]) == {"steps/eve/a", "steps/ada/b"}
    assert kept.unnamed([]) == set()


@pytest.mark.parametrize("prefix", ["videos/1/", "videos/1/2/"])
def test_a_folder_is_forgotten_with_all_that_is_below_and_nothing_else(kept: KeptSteps, prefix: str) -> None:
    inside, outside = ["videos/1/2/a", "videos/1/2/é"], ["videos/10/a", "videos/1", "Videos/1/2/a", "videos/1%/a", "videos/2/a", "steps/a"]
    for location in (*inside, *outside):
        kept.record("ada", location, location, 1, {})
    assert kept.forget_location(prefix) == 2
    assert set(kept.find("ada", [*inside, *outside])) == set(outside)


def test_the_longest_unused_steps_make_room_first(kept: KeptSteps, database: Database) -> None:
    for identity in "abcd":
        kept.record("ada", identity, f"steps/{identity}", 10, {})
    kept.record("ada", "video", "videos/1/2/a", 1000, {})
    unused(database, {"a": 300, "b": 400, "c": 500, "d": 200, "video": 900})
    assert list(kept.find("ada", ["c"])) == ["c"]
    unused(database, {"c": 100})
    assert kept.least_used(40, 9, 60) == []
    assert kept.least_used(39, 9, 60) == [Unneeded("ada", "b", "steps/b", 10)]
    assert [step.identity for step in kept.least_used(15, 9, 60)] == ["b", "a", "d"]
    assert [step.identity for step in kept.least_used(15, 2, 60)] == ["b", "a"]


def test_what_was_of_use_lately_makes_no_room(kept: KeptSteps, database: Database) -> None:
    for identity in "abc":
        kept.record("ada", identity, f"steps/{identity}", 10, {})
    unused(database, {"a": 100, "b": 30, "c": 200})
    assert [step.identity for step in kept.least_used(0, 9, 60)] == ["c", "a"]
