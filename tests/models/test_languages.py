"""text -> its script and its language"""

import random

import pytest

from aiprod_components.miniature.captions import LANGUAGES, write_caption
from aiprod_components.miniature.world import SceneMix, sample_scene
from aiprod_components.models.languages import find_language, find_script, languages


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_language_of_a_caption_is_told(language: str) -> None:
    rng, mix = random.Random(11), SceneMix(two_objects=0.3, patterns=0.3, cameras=0.3, pairs="all")
    captions = [write_caption(sample_scene(rng, mix=mix), language=language, rng=rng).text for _ in range(200)]
    told = [found.code for text in captions if (found := find_language(text)) is not None]
    assert told.count(language) >= 0.95 * len(captions)


PROMPTS = {
    "en": "Two astronauts walk through neon-lit streets while rain is falling",
    "fr": "Deux astronautes marchent dans une rue éclairée au néon",
    "de": "Zwei Astronauten laufen durch eine Straße im Neonlicht",
    "es": "Dos astronautas caminan por una calle iluminada con neón",
    "it": "Due astronauti camminano in una strada illuminata al neon",
    "pt": "Dois astronautas andam por uma rua iluminada por néon",
    "ru": "Два космонавта идут по улице под дождём",
    "ja": "二人の宇宙飛行士が雨の街を歩いている",
    "zh-Hans": "cinematic 镜头：两名宇航员走在雨中的街道上",
    "zh-Hant": "兩名太空人走在雨中的街道上",
}
# Neighbours of the first languages: said to be none of them, rather than the wrong one.
OTHERS = {
    "Een rode bal stuitert langzaam in de tuin": "LATIN",
    "En röd boll studsar på gräset": "LATIN",
    "Czerwona piłka odbija się od ściany": "LATIN",
    "Kırmızı bir top zıplıyor": "LATIN",
    "Червоний м'яч стрибає на траві, її тінь їде": "CYRILLIC",
    "كرة حمراء تقفز": "ARABIC",
    "빨간 공이 튀고 있다": "HANGUL",
    "लाल गेंद उछल रही है": "DEVANAGARI",
    "123 !!": None,
}


def test_the_language_of_a_prompt_about_anything_is_told() -> None:
    found = {code: find_language(text) for code, text in PROMPTS.items()}
    assert {code: language and language.code for code, language in found.items()} == {code: code for code in PROMPTS}
    assert set(PROMPTS) == set(LANGUAGES) == set(languages())


@pytest.mark.parametrize("text", OTHERS)
def test_a_language_beyond_the_first_ten_has_a_script_and_no_name(text: str) -> None:
    assert (find_language(text), find_script(text)) == (None, OTHERS[text])
