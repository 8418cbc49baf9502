"""texts -> the terms found in them"""

from itertools import pairwise

import pytest

from aiprod_components.models.video_vocabulary import BANDS, NUM_TERMS, TermMatch, match_terms, terms

SPECIFIED = {
    "camera": "pan tilt dolly_zoom tracking_shot dutch_angle crane_shot orbit",
    "lighting": "chiaroscuro backlighting three_point_light film_noir golden_hour harsh_shadows",
    "motion": "slow_motion slow_mo timelapse fast_motion motion_blur kinetic",
    "style": "cinematic vlog documentary anime photorealistic minimalist",
    "colour": "saturated desaturated warm_tone cool_tone color_grading vintage",
}


def ids(text: str) -> list[int]:
    return [match.term for match in match_terms(text)]


def test_there_are_exactly_500_terms_and_the_bands_cover_them():
    assert len(terms()) == NUM_TERMS == 500
    assert [term for band in BANDS.values() for term in band] == list(range(NUM_TERMS))
    assert terms()[0] == ("camera",)


def test_every_alias_is_found_under_its_own_id():
    for term, aliases in enumerate(terms()):
        assert aliases
        for alias in aliases:
            assert match_terms(alias) == [TermMatch(0, len(alias), term)], alias


@pytest.mark.parametrize("band", SPECIFIED)
def test_the_specification_s_terms_are_in_their_bands(band):
    for name in SPECIFIED[band].split():
        (term,) = ids(name)
        assert term in BANDS[band], name


def test_aliases_share_an_id():
    assert ids("slow_motion") == ids("slow_mo") == ids("slo-mo")
    assert ids("color grading") == ids("colour grading")


@pytest.mark.parametrize("text", ["dolly zoom", "dolly-zoom", "dolly_zoom", "Dolly Zoom", "DOLLY_ZOOM", "dolly  zoom"])
def test_case_and_joints_do_not_matter(text):
    assert ids(text) == ids("dolly_zoom")


def test_terms_are_found_only_at_word_boundaries():
    assert ids("panorama company, detangle the orbital mechanic") == []
    assert ids("2pan pan2") == []


def test_a_sentence_mark_between_words_parts_them():
    assert ids("slow. Motion") == ids("motion")


def test_spans_are_characters_of_the_text():
    text = "Straße bei Nacht: Slow-Motion, dann ein whip_pan!"
    assert [text[match.start : match.end] for match in match_terms(text)] == ["Slow-Motion", "whip_pan"]


def test_the_longest_term_wins_and_none_overlap():
    assert ids("dolly zoom in") == ids("dolly zoom")
    assert ids("extreme close-up shot") == ids("extreme close up")
    assert ids("a high contrast lighting setup") == ids("high contrast lighting")
    matches = match_terms("slow motion blur in black and white film grain, handheld camera pans left")
    assert all(left.end <= right.start for left, right in pairwise(matches))


def test_a_longer_term_wins_even_when_a_shorter_one_starts_before_it():
    assert ids("color grading") != ids("color")
    assert ids("soft volumetric light") == ids("volumetric light")
    assert ids("vintage film emulation") == ids("vintage") + ids("film emulation")
    assert ids("fast motion captures") == ids("fast motion")
    assert ids("slow motion capture") == ids("slow") + ids("motion capture")


def test_text_without_terms_has_no_matches():
    assert match_terms("") == []
    assert match_terms("ein roter Ball hüpft, 赤いボール") == []
