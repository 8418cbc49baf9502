"""prompt -> words -> runs of words that are terms of the video trade -> the longest ones that do not overlap, with their ids

The ids are rows of a learned embedding that is added to the prompt's tokens at the matched characters.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NUM_TERMS = 500
BANDS: dict[str, range] = {
    "camera": range(100),
    "lighting": range(100, 200),
    "motion": range(200, 300),
    "style": range(300, 400),
    "colour": range(400, 500),
}
_FILE = "video_vocabulary.toml"
_WORD = re.compile(r"[^\W_]+")  # an underscore joins words, it is no part of one
_JOINT = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class TermMatch:
    """A term found at the characters [start, end) of a text."""

    start: int
    end: int
    term: int


def match_terms(text: str) -> list[TermMatch]:
    """The terms in a text from left to right; where terms overlap the longest wins, then the first."""
    ids, first_words, most_words = _index()
    words = [word.span() for word in _WORD.finditer(text)]
    found: list[TermMatch] = []
    for number, (start, end) in enumerate(words):
        if text[start:end].casefold() not in first_words:
            continue
        for _, stop in reversed(words[number : number + most_words]):
            if (term := ids.get(_key(text[start:stop]))) is not None:
                found.append(TermMatch(start, stop, term))
    taken: list[TermMatch] = []
    for match in sorted(found, key=lambda match: (match.start - match.end, match.start)):
        if all(match.end <= other.start or other.end <= match.start for other in taken):
            taken.append(match)
    return sorted(taken, key=lambda match: match.start)


@cache
def terms() -> tuple[tuple[str, ...], ...]:
    """By id, the term and its aliases; raises ValueError if the file does not fill its bands or says a thing twice."""
    bands = tomllib.loads((files("aiprod_components.models") / _FILE).read_text(encoding="utf-8"))
    if tuple(bands) != tuple(BANDS):
        raise ValueError(f"{_FILE}: the bands must be {', '.join(BANDS)}, got {', '.join(bands)}")
    for band, ids in BANDS.items():
        if wrong := set(bands[band]) ^ {str(term) for term in ids}:
            raise ValueError(f"{_FILE}: {band}: ids missing or outside the band: {', '.join(sorted(wrong))}")
    table = tuple(tuple(bands[band][str(term)]) for band, ids in BANDS.items() for term in ids)
    owners: dict[str, int] = {}
    for term, aliases in enumerate(table):
        for alias in aliases:
            if _key(alias) in owners:
                raise ValueError(f"{_FILE}: {alias!r} is listed under {owners[_key(alias)]} and again under {term}")
            owners[_key(alias)] = term
    return table


@cache
def _index() -> tuple[dict[str, int], frozenset[str], int]:
    """Every alias by its key, the words that an alias may begin with, and how many words the longest has."""
    ids = {_key(alias): term for term, aliases in enumerate(terms()) for alias in aliases}
    words = [_WORD.findall(key) for key in ids]
    return ids, frozenset(found[0] for found in words), max(map(len, words))


def _key(text: str) -> str:
    return _JOINT.sub(" ", text.casefold())
