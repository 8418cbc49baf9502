"""errors -> what survives the way from a replica to the client"""

import pickle

import pytest

from aiprod_components import errors
from aiprod_components.errors import AiprodError


def tree(kind: type[AiprodError]) -> list[type[AiprodError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


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
