"""scene, language, random numbers -> facts to state -> phrasing -> caption (a text and the attributes it really states)

A lexicon (`lexicon/<language>.toml`) is the whole grammar of a language as data; adding a language adds one file.

- A *word* is a template, a list of words (synonyms, chosen at random) or a table of words by grammatical form or noun class
  (looked up in that order, then `base`); so adjectives, articles and verbs agree with nouns by being tables.
- A *template* is text with `{name}` for the word of a slot or of a `[phrases]` entry, `{name_2}` for the second object's,
  `{name:form}` to ask for a form (it is handed down to what is inside) and `[a|b]` for the first alternative that can be
  said with the facts at hand, else nothing.
- A *paradigm* is a table of endings: `"roj~o"` is the word `{m = "rojo", f = "roja"}` where `paradigms.o = {m = "o", f = "a"}`.
- `rules` are regular expressions for what depends on neighbours (a/an, de + un), applied to the finished text.
"""

import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from aiprod_components.miniature import world

# Each slot and the values a caption can state; "plain" is missing because a caption never says that a pattern is not there.
SLOTS: dict[str, tuple[str, ...]] = {
    "shape": world.SHAPES,
    "colour": tuple(world.COLOURS),
    "size": tuple(world.SIZES),
    "motion": tuple(world.MOTIONS),
    "speed": world.SPEEDS,
    "background": tuple(world.BACKGROUNDS),
    "pattern": world.PATTERNS[1:],
    "camera": tuple(world.CAMERAS),
    "relation": world.RELATIONS,
    "shape_2": world.SHAPES,
    "colour_2": tuple(world.COLOURS),
    "size_2": tuple(world.SIZES),
    "motion_2": tuple(world.MOTIONS),
}
PHRASINGS = ("seen", "held_out")  # held-out phrasings are never trained on: the quality report asks with them
SECOND = "_2"
WORD_SLOTS = tuple(slot for slot in SLOTS if not slot.endswith(SECOND))
OBJECT_SLOTS = tuple(slot for slot in WORD_SLOTS if slot + SECOND in SLOTS)
DROPPABLE = frozenset(slot for slot in SLOTS if slot.removesuffix(SECOND) not in ("shape", "relation"))
# How often a caption mentions that the camera is static, and how people type.
STATIC_CAMERA, CAPITALISED, STOPPED, LOWERED = 0.1, 0.4, 0.3, 0.08


@dataclass(frozen=True)
class Caption:
    """A text, and slot -> value for everything it states."""

    text: str
    language: str
    attributes: dict[str, str]


def write_caption(scene: world.Scene, *, language: str, rng: random.Random, drop: float = 0.0, phrasings: str = "seen") -> Caption:
    """A caption of the scene that leaves out each attribute but the shapes and the relation with chance `drop`."""
    lexicon = load_lexicon(language)
    if phrasings not in PHRASINGS:
        raise ValueError(f"phrasings must be one of {', '.join(PHRASINGS)}, got {phrasings!r}")
    facts = {slot: value for slot, value in _facts(scene, rng).items() if slot not in DROPPABLE or rng.random() >= drop}
    nouns = {"": _noun(lexicon, facts["shape"], rng)}
    if "relation" in facts:
        nouns[SECOND] = _noun(lexicon, facts["shape_2"], rng)
    phrasing = rng.choice(lexicon.phrasings["two" if "relation" in facts else "one", phrasings])
    said = _Writer(lexicon, facts, nouns, rng).write(phrasing, "base", "")
    if said is None:  # cannot happen with a lexicon that passed its checks
        raise ValueError(f"{language}.toml: no phrasing can say {facts}")
    return Caption(_typed(said.text, lexicon, rng), language, {slot: facts[slot] for slot in SLOTS if slot in said.slots})


def _facts(scene: world.Scene, rng: random.Random) -> dict[str, str]:
    """Slot -> value for all that can be said of the scene; the object that the relation is about comes first."""
    facts = {"background": scene.background}
    if scene.pattern != "plain":
        facts["pattern"] = scene.pattern
    if scene.camera != "static" or rng.random() < STATIC_CAMERA:
        facts["camera"] = scene.camera
    things = scene.things
    if scene.relation is not None:
        facts["relation"] = scene.relation
        # The nearer of two things is drawn last but named first: "X in front of Y".
        things = things[::-1] if scene.relation == "in front of" else things
    elif things[0].motion != "stays still":
        facts["speed"] = things[0].speed
    for suffix, thing in zip(("", SECOND), things, strict=False):
        facts |= {f"shape{suffix}": thing.shape, f"colour{suffix}": thing.colour}
        facts |= {f"size{suffix}": thing.size, f"motion{suffix}": thing.motion}
    return facts


# --- words and templates
@dataclass(frozen=True)
class _Ref:
    """`{name_2:form}`; an empty suffix or form is handed down from the template around."""

    name: str
    suffix: str
    form: str


@dataclass(frozen=True)
class _Template:
    """The first alternative that can be said; an optional one says nothing when none can."""

    alternatives: tuple[tuple["str | _Ref | _Template", ...], ...]
    optional: bool


@dataclass(frozen=True)
class _OneOf:
    words: tuple["_Word", ...]


@dataclass(frozen=True)
class _Forms:
    words: Mapping[str, "_Word"]
    noun_class: str  # set on nouns: what agrees with them

    def get(self, form: str, noun_class: str) -> "_Word | None":
        asked = self.words.get(form) if form != "base" else None
        return asked or self.words.get(noun_class) or self.words.get("base")


_Word = _Template | _OneOf | _Forms


@dataclass(frozen=True)
class Lexicon:
    """One language: its words by slot and value, its phrases and phrasings, how it is typed."""

    language: str
    name: str
    words: Mapping[tuple[str, str], _Word]
    phrases: Mapping[str, _Word]
    phrasings: Mapping[tuple[str, str], tuple[_Word, ...]]  # by ("one" or "two" objects, "seen" or "held_out")
    rules: tuple[tuple[re.Pattern[str], str], ...]
    stop: str
    capitals: Mapping[str, str]  # letters whose capital is not Unicode's default (Turkish i)


# --- writing
@dataclass(frozen=True)
class _Said:
    text: str
    slots: tuple[str, ...]


@dataclass(frozen=True)
class _Writer:
    lexicon: Lexicon
    facts: Mapping[str, str]
    nouns: Mapping[str, tuple[_Word, str]]  # the nouns chosen for the objects, and their classes
    rng: random.Random

    def write(self, word: _Word, form: str, suffix: str) -> _Said | None:
        """What the word says in this form about this object; None when a fact that it needs is missing."""
        while not isinstance(word, _Template):
            if isinstance(word, _OneOf):
                word = self.rng.choice(word.words)
            else:
                word = word.get(form, self.nouns[suffix][1]) or _EMPTY
        for alternative in word.alternatives:
            if (said := self._sequence(alternative, form, suffix)) is not None:
                return said
        return _Said("", ()) if word.optional else None

    def _sequence(self, nodes: "tuple[str | _Ref | _Template, ...]", form: str, suffix: str) -> _Said | None:
        text, slots = "", ()
        for node in nodes:
            if isinstance(node, str):
                text += node
                continue
            said = self._ref(node, form, suffix) if isinstance(node, _Ref) else self.write(node, form, suffix)
            if said is None:
                return None
            text, slots = text + said.text, slots + said.slots
        return _Said(text, slots)

    def _ref(self, ref: _Ref, form: str, suffix: str) -> _Said | None:
        form, suffix = ref.form or form, ref.suffix or suffix
        if ref.name in self.lexicon.phrases:
            return self.write(self.lexicon.phrases[ref.name], form, suffix)
        slot = ref.name + suffix if ref.name in OBJECT_SLOTS else ref.name
        if slot not in self.facts:
            return None
        word = self.nouns[suffix][0] if ref.name == "shape" else self.lexicon.words[ref.name, self.facts[slot]]
        said = self.write(word, form, suffix)
        return said and _Said(said.text, (*said.slots, slot))


def _noun(lexicon: Lexicon, shape: str, rng: random.Random) -> tuple[_Word, str]:
    """The noun for a shape and its class: chosen before the words that agree with it."""
    word = lexicon.words["shape", shape]
    word = rng.choice(word.words) if isinstance(word, _OneOf) else word
    return word, _class_of(word)


def _class_of(noun: _Word) -> str:
    return noun.noun_class if isinstance(noun, _Forms) else ""


def _typed(text: str, lexicon: Lexicon, rng: random.Random) -> str:
    """The text as somebody types it: with or without a capital and a full stop, at times all in lower case."""
    for pattern, replacement in lexicon.rules:
        text = pattern.sub(replacement, text)
    if rng.random() < LOWERED:
        text = text.lower()
    if rng.random() < CAPITALISED:
        text = lexicon.capitals.get(text[0], text[0].title()) + text[1:]
    return text + lexicon.stop if rng.random() < STOPPED else text


# --- reading lexicons
_FOLDER = files("aiprod_components.miniature") / "lexicon"
LANGUAGES: tuple[str, ...] = tuple(sorted(f.name.removesuffix(".toml") for f in _FOLDER.iterdir() if f.name.endswith(".toml")))


@cache
def load_lexicon(language: str) -> Lexicon:
    """The checked lexicon of a language; raises ValueError naming the file and the key that is wrong."""
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    return read_lexicon(language, (_FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


def read_lexicon(language: str, text: str) -> Lexicon:
    """The checked lexicon in a TOML text; raises ValueError naming the file and the key that is wrong."""
    reader = _Reader(language, tomllib.loads(text))
    lexicon = Lexicon(
        language=language,
        name=reader.get("name"),
        words={(slot, value): reader.word(f"{slot}.{value}", slot, value) for slot in WORD_SLOTS for value in SLOTS[slot]},
        phrases={name: reader.word(f"phrases.{name}", "phrases", name) for name in reader.get("phrases")},
        phrasings={
            (count, kind): tuple(reader.template(f"{count}.{kind}", phrasing) for phrasing in reader.get(count, kind))
            for count in ("one", "two")
            for kind in PHRASINGS
        },
        rules=tuple((re.compile(pattern), replacement) for pattern, replacement in reader.get("rules")),
        stop=reader.get("stop"),
        capitals=reader.data.get("capitals", {}),
    )
    _Check(lexicon).all()
    return lexicon


@dataclass(frozen=True)
class _Reader:
    """Parsed TOML -> words. Every error names the file and the key."""

    language: str
    data: dict[str, Any]

    def fail(self, key: str, why: str) -> ValueError:
        return ValueError(f"{self.language}.toml: {key}: {why}")

    def get(self, *path: str) -> Any:
        value = self.data
        for name in path:
            if not isinstance(value, dict) or name not in value:
                raise self.fail(".".join(path), "is missing")
            value = value[name]
        return value

    def word(self, key: str, *path: str) -> _Word:
        return self._word(key, self.get(*path))

    def _word(self, key: str, raw: object) -> _Word:
        if raw == "" and not key.startswith("phrases."):
            raise self.fail(key, "is empty: only phrases may say nothing")
        if isinstance(raw, str):
            stem, _, rest = raw.partition("~")
            return self._inflected(key, stem, rest) if rest else self.template(key, raw)
        if isinstance(raw, list) and raw:
            words = tuple(self._word(key, item) for item in raw)
            return words[0] if len(words) == 1 else _OneOf(words)
        if isinstance(raw, dict) and raw:
            known = {"base", "class", *self.get("forms"), *self.get("classes")}
            if unknown := set(raw) - known:
                raise self.fail(key, f"{', '.join(sorted(unknown))} is neither in forms nor in classes")
            noun_class = raw.get("class", "")
            if noun_class and noun_class not in self.get("classes"):
                raise self.fail(key, f"class {noun_class} is not in classes")
            return _Forms({name: self._word(f"{key}.{name}", item) for name, item in raw.items() if name != "class"}, noun_class)
        raise self.fail(key, f"must be a text, or a list or table of texts, got {raw!r}")

    def _inflected(self, key: str, stem: str, rest: str) -> _Word:
        name = re.match(r"\w+", rest)
        if name is None:
            raise self.fail(key, "~ must be followed by the name of a paradigm")
        return self._word(key, _with_endings(stem, self.get("paradigms", name[0]), rest[name.end() :]))

    def template(self, key: str, text: str) -> _Template:
        tokens = iter(re.findall(r"\{\w+(?::\w+)?\}|[][|]|[^][|{}]+|.", text))
        template = self._alternatives(key, tokens, inside=False)
        if next(tokens, None) is not None:
            raise self.fail(key, f"] without [ in {text!r}")
        return template

    def _alternatives(self, key: str, tokens: Iterator[str], *, inside: bool) -> _Template:
        alternatives: list[list[str | _Ref | _Template]] = [[]]
        for token in tokens:
            if token == "[":
                alternatives[-1].append(self._alternatives(key, tokens, inside=True))
            elif token == "]" and inside:
                return _Template(tuple(map(tuple, alternatives)), optional=True)
            elif token == "|":
                alternatives.append([])
            elif token in "]{}":
                raise self.fail(key, f"{token} has no partner")
            else:
                alternatives[-1].append(self._ref(key, token) if token[0] == "{" else token)
        if inside:
            raise self.fail(key, "[ without ]")
        return _Template(tuple(map(tuple, alternatives)), optional=False)

    def _ref(self, key: str, token: str) -> _Ref:
        full_name, _, form = token[1:-1].partition(":")
        name = full_name.removesuffix(SECOND)
        if name not in WORD_SLOTS and name not in self.get("phrases"):
            raise self.fail(key, f"{token} names neither a slot nor a phrase")
        if form and form not in ("base", *self.get("forms"), *self.get("classes")):
            raise self.fail(key, f"{token} asks for a form that is neither in forms nor in classes")
        return _Ref(name, full_name[len(name) :], form)


def _with_endings(stem: str, ending: object, rest: str) -> object:
    """A paradigm of endings -> the same tables and lists of whole words."""
    if isinstance(ending, dict):
        return {name: _with_endings(stem, item, rest) for name, item in ending.items()}
    return [_with_endings(stem, item, rest) for item in ending] if isinstance(ending, list) else f"{stem}{ending}{rest}"


_EMPTY = _Template(((),), optional=True)  # what a checked lexicon never comes to


# --- checking lexicons
class _Check:
    """Walks every phrasing with all facts at hand: each word must have every form asked for, and every fact must be stated."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        nouns = [word for (slot, _), word in lexicon.words.items() if slot == "shape"]
        self.classes = sorted({_class_of(word) for noun in nouns for word in (noun.words if isinstance(noun, _OneOf) else (noun,))})
        self.known: dict[tuple[str, str, str], frozenset[str] | None] = {}

    def all(self) -> None:
        one = set(WORD_SLOTS) - {"relation"}
        for (count, kind), phrasings in self.lexicon.phrasings.items():
            wanted = one if count == "one" else set(SLOTS) - {"speed"}
            if len(phrasings) < (2 if kind == "held_out" else 5):
                raise self.fail(f"{count}.{kind}", "has too few phrasings (5 seen and 2 held_out are needed)")
            for number, phrasing in enumerate(phrasings, 1):
                key = f"{count}.{kind} number {number}"
                if missing := wanted - self.stated(key, phrasing, "base", ""):
                    raise self.fail(key, f"does not state {', '.join(sorted(missing))}")
        for count in ("one", "two"):
            if shared := set(self.lexicon.phrasings[count, "seen"]) & set(self.lexicon.phrasings[count, "held_out"]):
                raise self.fail(count, f"{len(shared)} phrasings are both seen and held_out")

    def fail(self, key: str, why: str) -> ValueError:
        return ValueError(f"{self.lexicon.language}.toml: {key}: {why}")

    def stated(self, key: str, word: _Word, form: str, suffix: str) -> frozenset[str]:
        """The slots that the word states whichever synonyms, values and noun classes are drawn."""
        if isinstance(word, _OneOf):
            return frozenset.intersection(*(self.stated(key, item, form, suffix) for item in word.words))
        if isinstance(word, _Forms):
            found = [word.get(form, noun_class) for noun_class in self.classes]
            if None in found:
                raise self.fail(key, f"has no form for {form} {self.classes[found.index(None)]}".rstrip())
            return frozenset.intersection(*(self.stated(key, item, form, suffix) for item in found if item is not None))
        said = [[self.node(key, node, form, suffix) for node in nodes if not isinstance(node, str)] for nodes in word.alternatives]
        return frozenset().union(*said[0])

    def node(self, key: str, node: _Ref | _Template, form: str, suffix: str) -> frozenset[str]:
        if isinstance(node, _Template):
            return self.stated(key, node, form, suffix)
        at = (node.name, node.form or form, node.suffix or suffix)
        if at not in self.known:
            self.known[at] = None
            self.known[at] = self.slot(*at) if node.name in WORD_SLOTS else self.phrase(*at)
        stated = self.known[at]
        if stated is None:
            raise self.fail(key, f"{node.name} refers to itself")
        return stated

    def phrase(self, name: str, form: str, suffix: str) -> frozenset[str]:
        return self.stated(f"phrases.{name}", self.lexicon.phrases[name], form, suffix)

    def slot(self, name: str, form: str, suffix: str) -> frozenset[str]:
        values = {value: self.stated(f"{name}.{value}", self.lexicon.words[name, value], form, suffix) for value in SLOTS[name]}
        # What stays still has no speed, so its word need not leave room for one.
        inner = frozenset.intersection(*(stated for value, stated in values.items() if value != "stays still"))
        return inner | {name + suffix if name in OBJECT_SLOTS else name}
