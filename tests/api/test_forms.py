"""a form's bracketed names -> groups and lists, as OpenAI's client flattens them"""

import pytest

from aiprod_components.errors import InvalidRequestError
from deployments.api.body import parse_form


def test_lists_of_groups_begin_anew_where_a_field_comes_again() -> None:
    items: list[tuple[str, str | bytes]] = [
        ("loras[][name]", "style"),
        ("loras[][scale]", "1"),
        ("loras[][name]", "canny"),
        ("loras[][name]", "noir"),
        ("loras[][scale]", "2"),
    ]
    assert parse_form(items).fields == {"loras": [{"name": "style", "scale": "1"}, {"name": "canny"}, {"name": "noir", "scale": "2"}]}


def test_groups_hold_lists_and_groups() -> None:
    items: list[tuple[str, str | bytes]] = [("a[b][]", "1"), ("a[b][]", "2"), ("a[c][d]", "3"), ("e[]", "4"), ("f[id]", "5")]
    assert parse_form(items).fields == {"a": {"b": ["1", "2"], "c": {"d": "3"}}, "e": ["4"], "f": {"id": "5"}}


def test_openai_s_client_sends_all_of_a_field_together() -> None:
    items: list[tuple[str, str | bytes]] = [
        ("loras[][name]", "a"),
        ("loras[][name]", "b"),
        ("loras[][scale]", "1"),
        ("loras[][scale]", "2"),
    ]
    assert parse_form(items).fields == {"loras": [{"name": "a", "scale": "1"}, {"name": "b", "scale": "2"}]}


def test_groups_that_cannot_be_told_apart_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequestError, match="one text of JSON") as refused:
        parse_form([("loras[][name]", "a"), ("loras[][name]", "b"), ("loras[][scale]", "2")])
    assert refused.value.field == "loras"


def test_listed_groups_hold_groups() -> None:
    items: list[tuple[str, str | bytes]] = [("k[][at][x]", "1"), ("k[][name]", "n"), ("k[][at][x]", "2"), ("k[][name]", "m")]
    assert parse_form(items).fields == {"k": [{"at": {"x": "1"}, "name": "n"}, {"at": {"x": "2"}, "name": "m"}]}


@pytest.mark.parametrize(
    "items",
    [
        [("a[b]", "1"), ("a[b]", "2")],
        [("a", "1"), ("a[b]", "2")],
        [("a[b]", "1"), ("a", "2")],
        [("a[]", "1"), ("a[b]", "2")],
        [("a[][b]", "1"), ("a[c]", "2")],
        [("a", "1"), ("a[][b]", "2")],
        [("a[b][c]", "1"), ("a[b]", "2")],
        [("a", b"file"), ("a[b]", "2")],
        [("a", b"file"), ("a", b"file")],
        [("a", "1"), ("a", b"file")],
    ],
)
def test_what_is_given_twice_is_refused(items: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(InvalidRequestError, match="given twice") as refused:
        parse_form(items)
    assert refused.value.field == "a"


@pytest.mark.parametrize("name", ["a[", "a]", "[a]", "a[b", "a[b]c", "a[[b]]", "a[b][c][d][e][f]", "a" * 10_000 + "["])
def test_names_that_are_no_path_are_plain_names(name: str) -> None:
    assert parse_form([(name, "1")]).fields == {name: "1"}
