"""scenes -> captions: grammatical, true and complete in every language"""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files

import pytest

from aiprod_components.miniature import captions, world
from aiprod_components.miniature.captions import DROPPABLE, LANGUAGES, PHRASINGS, SLOTS, load_lexicon, read_lexicon, write_caption
from aiprod_components.miniature.world import Scene, Thing

FIRST_LANGUAGES = {"en", "zh-Hans", "zh-Hant", "es", "fr", "ja", "de", "it", "pt", "ru"}
BALL = Thing("ball", "red", "big", "bounces", "slowly", (0.0, 0.0))
SQUARE = Thing("square", "blue", "small", "stays still", "slowly", (0.2, 0.0))
every_language = pytest.mark.parametrize("language", LANGUAGES)


def random_scene(rng: random.Random, *, two: bool) -> Scene:
    def thing() -> Thing:
        shape, colour = rng.choice(world.SHAPES), rng.choice(list(world.COLOURS))
        size, motion = rng.choice(list(world.SIZES)), rng.choice(list(world.MOTIONS))
        return Thing(shape, colour, size, motion, rng.choice(world.SPEEDS), (0.0, 0.0))

    things = (thing(), thing()) if two else (thing(),)
    background, pattern = rng.choice(list(world.BACKGROUNDS)), rng.choice(world.PATTERNS)
    return Scene(things, background, pattern, rng.choice(list(world.CAMERAS)), rng.choice(world.RELATIONS) if two else None)


def expected(scene: Scene) -> dict[str, str]:
    """All that can be said of a scene."""
    things = scene.things[::-1] if scene.relation == "in front of" else scene.things
    facts = {
        f"{slot}{suffix}": getattr(thing, slot) for thing, suffix in zip(things, ("", "_2"), strict=False) for slot in captions.OBJECT_SLOTS
    }
    facts |= {"background": scene.background, "camera": scene.camera}
    if scene.pattern != "plain":
        facts["pattern"] = scene.pattern
    if scene.relation:
        facts["relation"] = scene.relation
    elif things[0].motion != "stays still":
        facts["speed"] = things[0].speed
    return facts


def some_captions(language: str, *, count: int, drop: float, seed: int = 0) -> Iterator[tuple[Scene, captions.Caption]]:
    rng = random.Random(seed)
    for number in range(count):
        scene = random_scene(rng, two=number % 2 == 1)
        yield scene, write_caption(scene, language=language, rng=rng, drop=drop, phrasings=PHRASINGS[number % 3 == 0])


def scenes_stating(slot: str) -> dict[str, Scene]:
    """For each value of a slot, a scene that has it and is otherwise the same."""
    two = slot.endswith("_2") or slot == "relation"
    base = Scene((BALL, SQUARE), "black", "dots", "jib up", "left of") if two else Scene((BALL,), "navy", "dots", "jib up")
    if slot in ("background", "pattern", "camera", "relation"):
        return {value: replace(base, **{slot: value}) for value in SLOTS[slot]}
    index = 1 if two else 0

    def with_value(value: str) -> Scene:
        things = list(base.things)
        things[index] = replace(things[index], **{slot.removesuffix("_2"): value})
        return replace(base, things=tuple(things))

    return {value: with_value(value) for value in SLOTS[slot]}


def texts(scene: Scene, *, language: str, count: int) -> set[str]:
    rng = random.Random(1)
    return {write_caption(scene, language=language, rng=rng).text.casefold().rstrip(".。") for _ in range(count)}


def wordings(word: object) -> Iterator[list[str]]:
    """The ways to say a word, each as the literal pieces that must be in the text."""
    if isinstance(word, captions._Template):
        for alternative in word.alternatives:
            yield [node for node in alternative if isinstance(node, str)]
    else:
        assert isinstance(word, captions._OneOf | captions._Forms)
        for item in word.words.values() if isinstance(word, captions._Forms) else word.words:
            yield from wordings(item)


# --- every language
def test_the_first_languages_are_there():
    assert set(LANGUAGES) >= FIRST_LANGUAGES


@every_language
def test_a_lexicon_states_every_value_of_every_slot(language):
    rng = random.Random(0)
    for slot in SLOTS:
        for value, scene in scenes_stating(slot).items():
            stated = {write_caption(scene, language=language, rng=rng).attributes.get(slot) for _ in range(60 if value == "static" else 3)}
            assert value in stated, (slot, value)


@every_language
def test_distinct_values_give_distinct_texts(language):
    for slot in SLOTS:
        seen: dict[str, str] = {}
        for value, scene in scenes_stating(slot).items():
            if value == "static":  # mostly left unsaid
                continue
            for text in texts(scene, language=language, count=40):
                assert seen.setdefault(text, value) == value, (slot, text)


@every_language
def test_without_dropping_all_that_can_be_said_is_said(language):
    for scene, caption in some_captions(language, count=1000, drop=0.0):
        facts = expected(scene)
        unsaid = set(facts) - set(caption.attributes)
        assert unsaid <= ({"camera"} if scene.camera == "static" else set()), caption
        assert caption.attributes.items() <= facts.items(), caption


@every_language
def test_what_is_said_agrees_with_the_scene_when_attributes_are_dropped(language):
    for scene, caption in some_captions(language, count=1000, drop=0.5):
        facts = expected(scene)
        assert caption.attributes.items() <= facts.items(), caption
        assert set(facts) - DROPPABLE <= set(caption.attributes), caption
        assert "motion" in caption.attributes or "speed" not in caption.attributes, caption


@every_language
def test_every_stated_value_is_really_in_the_text(language):
    words = load_lexicon(language).words
    ways = {key: [[piece.casefold() for piece in way] for way in wordings(word)] for key, word in words.items()}
    for _, caption in some_captions(language, count=1000, drop=0.3):
        text = caption.text.casefold()
        for slot, value in caption.attributes.items():
            assert any(all(piece in text for piece in way) for way in ways[slot.removesuffix("_2"), value]), (slot, value, caption.text)


@every_language
def test_dropping_all_leaves_the_shapes_and_the_relation(language):
    for scene, caption in some_captions(language, count=300, drop=1.0):
        assert set(caption.attributes) == set(expected(scene)) - DROPPABLE


@every_language
def test_texts_are_tidy(language):
    untidy = re.compile(r"[{}\[\]|~]|\s\s|^\s|\s$|\s[,.;:、。，]|[,;:、，—-]$|^[,.;:、。，—-]|[,、，]\s*[,、，。.]|[.。]{2}")
    for drop in (0.0, 0.3, 0.7):
        for _, caption in some_captions(language, count=1500, drop=drop, seed=2):
            assert caption.text and not untidy.search(caption.text), caption.text


@every_language
def test_seen_and_held_out_phrasings_are_disjoint(language):
    phrasings = load_lexicon(language).phrasings
    for count in ("one", "two"):
        seen, held_out = set(phrasings[count, "seen"]), set(phrasings[count, "held_out"])
        assert len(seen) >= 5 and len(held_out) >= 2 and not seen & held_out


@every_language
def test_people_type_with_and_without_a_full_stop(language):
    stop = load_lexicon(language).stop
    assert {caption.text.endswith(stop) for _, caption in some_captions(language, count=100, drop=0.0)} == {True, False}


@every_language
def test_the_same_seed_writes_the_same_caption(language):
    first, second = ([caption for _, caption in some_captions(language, count=20, drop=0.3)] for _ in range(2))
    assert first == second


# --- what some languages must get right
def test_the_plain_english_sentence_can_be_reached():
    scene = Scene((BALL,), "navy")
    assert "a big red ball bounces slowly on a navy background" in texts(scene, language="en", count=4000)


def test_the_short_comma_style_can_be_reached():
    rng = random.Random(0)
    short = {write_caption(Scene((BALL,), "navy"), language="en", rng=rng, drop=0.3).text for _ in range(4000)}
    assert "red ball, bouncing, navy background" in short


def test_two_objects_can_be_told_plainly():
    rng, scene = random.Random(0), Scene((replace(BALL, size="small"), SQUARE), "black", relation="left of")
    told = {write_caption(scene, language="en", rng=rng, drop=0.3).text for _ in range(6000)}
    assert "a small red ball to the left of a small blue square on a black background" in told


@pytest.mark.parametrize("phrasings", PHRASINGS)
def test_the_nearer_object_is_named_first(phrasings):
    rng, scene = random.Random(0), Scene((SQUARE, replace(BALL, colour="green")), "black", relation="in front of")
    for _ in range(50):
        caption = write_caption(scene, language="en", rng=rng, phrasings=phrasings)
        assert caption.attributes["colour"] == "green" and caption.attributes["colour_2"] == "blue"
        assert caption.text.casefold().index("green") < caption.text.casefold().index("blue")


def test_english_says_an_before_a_vowel():
    found = " ".join(caption.text.casefold() for _, caption in some_captions("en", count=2000, drop=0.6))
    assert "an orange" in found
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", found)


@pytest.mark.parametrize(
    ("language", "shape", "colour", "phrases"),
    [
        ("de", "ball", "red", {"ein großer roter ball", "eine große rote kugel"}),
        ("de", "square", "blue", {"ein großes blaues quadrat"}),
        ("es", "star", "yellow", {"una estrella amarilla grande"}),
        ("fr", "cross", "white", {"une grande croix blanche"}),
        ("it", "ring", "red", {"un grande anello rosso"}),
        ("pt", "cross", "yellow", {"uma cruz amarela grande"}),
        ("ru", "ring", "blue", {"большое синее кольцо"}),
        ("zh-Hans", "star", "red", {"一颗红色的大星星"}),
        ("zh-Hant", "ball", "red", {"一個紅色大球"}),
        ("ja", "ball", "red", {"大きな赤いボール"}),
    ],
)
def test_words_agree_with_their_noun(language, shape, colour, phrases):
    scene = Scene((replace(BALL, shape=shape, colour=colour),), "black")
    found = " ".join(texts(scene, language=language, count=400))
    assert all(phrase.casefold() in found for phrase in phrases)


def test_german_and_russian_decline_the_second_object():
    scene = Scene((BALL, replace(SQUARE, shape="star")), "black", relation="left of")
    assert "von einem kleinen blauen stern" in " ".join(texts(scene, language="de", count=200))
    assert "слева от маленькой синей звезды" in " ".join(texts(scene, language="ru", count=200))


# --- errors
def english() -> str:
    return (files("aiprod_components.miniature") / "lexicon" / "en.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('triangle = "triangle"\n', "", r"xx\.toml: shape\.triangle: is missing"),
        ('stop = "."\n', "", r"xx\.toml: stop: is missing"),
        ('cyan = "cyan"', 'cyan = ""', r"colour\.cyan: .*empty"),
        ('cyan = "cyan"', 'cyan = { plural = "cyan" }', r"colour\.cyan: plural is neither in forms nor in classes"),
        ('cyan = "cyan"', 'cyan = { bare = "cyan" }', r"colour\.cyan: has no form for base"),
        ('cyan = "cyan"', 'cyan = "cyan~x"', r"xx\.toml: paradigms\.x: is missing"),
        ('cyan = "cyan"', 'cyan = "cy{an"', r"colour\.cyan: { has no partner"),
        ('cyan = "cyan"', 'cyan = "cy[an"', r"colour\.cyan: \[ without \]"),
        ('cyan = "cyan"', 'cyan = "{hue}"', r"{hue} names neither a slot nor a phrase"),
        (
            '    "{thing}[ {motion}[ {speed}]][ {ground}][, {camera}]",',
            '    "{thing}[ {motion}]",',
            r"one\.seen number 1: does not state background",
        ),
    ],
)
def test_a_faulty_lexicon_is_refused_by_file_and_key(old, new, message):
    text = english()
    assert old in text
    with pytest.raises(ValueError, match=message):
        read_lexicon("xx", text.replace(old, new, 1))


def test_an_unknown_language_or_phrasing_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="en, es, fr"):
        write_caption(Scene((BALL,), "navy"), language="tlh", rng=random.Random(0))
    with pytest.raises(ValueError, match="seen, held_out"):
        write_caption(Scene((BALL,), "navy"), language="en", rng=random.Random(0), phrasings="all")
