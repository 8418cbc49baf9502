"""the placement group that a replica is in -> how many share its work; without one, it works alone"""

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from aiprod_components.errors import ConfigError
from deployments import ranks
from deployments.ranks import ranks_here


def place(monkeypatch: pytest.MonkeyPatch, *, bundles: int, strategy: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ranks, "get_current_placement_group", lambda: SimpleNamespace(bundle_count=bundles))
    monkeypatch.setattr(ranks, "placement_group_table", lambda _group: {"strategy": strategy})


def test_a_replica_built_by_hand_works_alone_and_starts_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> Any:
        raise AssertionError("it would start one")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ranks, "get_current_placement_group", start)
    assert ranks_here() is None


def test_a_rank_for_each_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, bundles=4, strategy="STRICT_PACK")
    found = ranks_here()
    assert found is not None
    assert found.count == 4


def test_one_bundle_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, bundles=1, strategy="PACK")
    assert ranks_here() is None


def test_ranks_on_several_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, bundles=2, strategy="PACK")
    with pytest.raises(ConfigError, match=r"placement_group_strategy is PACK, .* make it STRICT_PACK"):
        ranks_here()
