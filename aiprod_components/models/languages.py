"""text -> its script, by the bytes that each takes -> its language, by the words, letters and characters that tell one from another

No model and no file but a table of the first languages; what is in none of them has a script and no language.
"""

import re
import tomllib
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FILE = "languages.toml"
_WORD = re.compile(r"[^\W\d_]+")
# Unicode's names for what people read as one script. Kana beside Chinese characters is Japanese, however few.
_SCRIPTS = {
    "CJK": "HAN",
    "HIRAGANA": "KANA",
    "KATAKANA": "KANA",
    "KATAKANA-HIRAGANA": "KANA",
    "HALFWIDTH": "KANA",
    "FULLWIDTH": "LATIN",
}
KANA_SHARE = 0.1
# Less than this much evidence per word is chance: neighbours share small words.
EVIDENCE_PER_WORD = 0.2
FOREIGN_LETTER = -2.0


@dataclass(frozen=True)
class Language:
    """What tells a language from others of its script; see `languages.toml`."""

    code: str
    name: str
    script: str
    words: frozenset[str]
    letters: frozenset[str]
    characters: frozenset[str]
    assumed: bool


def find_script(text: str) -> str | None:
    """The script of most of a text, as Unicode names it (`LATIN`, `CYRILLIC`, `HAN`; `JAPANESE` with kana); None without letters."""
    # By bytes: a Chinese character says as much as a few Latin letters, and takes three.
    size: Counter[str] = Counter()
    for character in filter(str.isalpha, text):
        name = unicodedata.name(character, "UNKNOWN").split()[0]
        size[_SCRIPTS.get(name, name)] += len(character.encode())
    kana = size.pop("KANA", 0)
    if kana > KANA_SHARE * (kana + size["HAN"]):
        size["JAPANESE"] = kana + size.pop("HAN", 0)
    return max(size, key=lambda script: size[script]) if +size else None


def find_language(text: str) -> Language | None:
    """The language of a text, if it is one of the table and the text says enough to tell."""
    script = find_script(text)
    rivals = [language for language in languages().values() if language.script == script]
    if not rivals:
        return None
    words = _WORD.findall(unicodedata.normalize("NFC", text).casefold())
    scores = {language.code: _score(words, language, rivals) for language in rivals}
    best, *others = sorted(rivals, key=lambda language: (-scores[language.code], not language.assumed))
    if best.assumed:
        return best if scores[best.code] >= 0 else None
    told_apart = all(scores[other.code] < scores[best.code] for other in others)
    return best if told_apart and scores[best.code] >= EVIDENCE_PER_WORD * len(words) else None


def _score(words: list[str], language: Language, rivals: list[Language]) -> float:
    """What speaks for the language, each sign divided among the rivals that share it, less the letters that it does not write."""
    letters = [letter for word in words for letter in word if letter > "z"]
    score = 0.0
    score += sum(1 / sum(word in rival.words for rival in rivals) for word in words if word in language.words)
    score += sum(letter in language.characters for letter in letters)
    for letter in letters if language.letters else ():
        writers = sum(letter in rival.letters for rival in rivals)
        score += FOREIGN_LETTER if letter not in language.letters else 1 / writers if writers < len(rivals) else 0.0
    return score


@cache
def languages() -> dict[str, Language]:
    """The languages of the table by their codes."""
    table = tomllib.loads((files("aiprod_components.models") / _FILE).read_text(encoding="utf-8"))
    return {
        code: Language(
            code,
            entry["name"],
            entry["script"],
            words=frozenset(entry.get("words", "").split()),
            letters=frozenset(entry.get("letters", "")),
            characters=frozenset(_only(table, code)),
            assumed=entry.get("assumed", False),
        )
        for code, entry in table.items()
    }


def _only(table: dict[str, dict[str, str]], code: str) -> set[str]:
    """A language's characters that no other language lists."""
    others = {character for other, entry in table.items() if other != code for character in entry.get("characters", "")}
    return set(table[code].get("characters", "")) - others - {"\n"}
