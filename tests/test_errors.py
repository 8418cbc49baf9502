"""errors -> what survives the way from a replica to the client"""

import pickle

import pytest

from aiprod_components import errors
from aiprod_components.errors import AiprodError

OURS = ("aiprod_components", "deployments", "aiprod_client")


def tree(kind: type[AiprodError]) -> list[type[AiprodError]]:
    """The kinds that the source declares; Ray makes more of them as it runs, to carry an error home."""
    below = [kind for child in kind.__subclasses__() for kind in tree(child)]
    return [kind, *below] if kind.__module__.startswith(OURS) else below


@pytest.mark.parametrize("kind", tree(AiprodError), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("field", [None, "num_frames"])
def test_an_error_travels_whole(kind: type[AiprodError], field: str | None) -> None:
    arrived = pickle.loads(pickle.dumps(kind("num_frames must be 29", field=field)))
    assert type(arrived) is kind
    assert (arrived.message, arrived.field, str(arrived)) == ("num_frames must be 29", field, "num_frames must be 29")


def test_the_tree_is_on_one_page() -> None:
    """Errors declared elsewhere would be unknown to the one place that maps them to HTTP and gRPC."""
    assert {kind.__module__ for kind in tree(AiprodError)} == {errors.__name__}


def test_each_kind_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in tree(AiprodError)]
    assert len(set(codes)) == len(codes)
