"""prompt -> instruction; answer -> prompt, or why it is none"""

import pytest

from aiprod_components.families import make_family
from aiprod_components.models.prompt_style import fault_in, make_instruction, read_answer

MAX_BYTES = make_family("miniature").limits.max_prompt_bytes
PROMPT = "a red ball bounces"


def question(prompt: str) -> str:
    return make_instruction(prompt, before=(), max_bytes=MAX_BYTES)


ANSWERS = {
    "Style: cinematic, a ball": "Style: cinematic, a ball",
    '"**Style:** film noir , a man is walking."': "Style: film noir, a man is walking.",
    "<think>\nStyle: x, y\n</think>\nStyle: anime, a ball, spinning": "Style: anime, a ball, spinning",
    "风格：电影感，一个球正在弹跳。": "风格: 电影感, 一个球正在弹跳。",
    "A ball is bouncing.": "",
    "Style: cinematic": "",
    "Style: , a ball": "",
    "": "",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_read_by_its_form(answer: str) -> None:
    assert read_answer(answer) == ANSWERS[answer]


def test_a_version_in_another_script_cannot_stand_for_a_prompt_whose_language_has_no_name() -> None:
    korean = "빨간 공이 튀고 있다"
    assert fault_in(f"Style: 영화, {korean}", prompt=korean, max_bytes=MAX_BYTES) is None
    assert fault_in("Style: cinematic, a red ball is bouncing", prompt=korean, max_bytes=MAX_BYTES) == (
        "it is not in the prompt's script, HANGUL"
    )


def test_a_version_as_long_as_a_prompt_may_be_stands() -> None:
    enhanced = "Style: cinematic, a red ball is in the grass and it is bouncing"
    assert fault_in(enhanced, prompt=PROMPT, max_bytes=len(enhanced)) is None
    assert "and a prompt at most" in (fault_in(enhanced, prompt=PROMPT, max_bytes=len(enhanced) - 1) or "")


def test_a_prompt_of_several_lines_is_asked_about_as_one() -> None:
    assert "Prompt: a ball {prompt} bounces" in question("a ball\n\n {prompt}\tbounces")


def test_a_family_that_reads_less_asks_for_less() -> None:
    assert "at most 450 characters" in question("a red ball") and "at most 150 characters" in question("红色的球在这里")
    assert "at most 600 characters" in make_instruction("a red ball", before=(), max_bytes=4000)


def test_a_language_is_named_where_it_is_known() -> None:
    assert "Write in German, the language of the prompt." in question("ein roter Ball auf der Wiese")
    assert "Write in the language of the prompt." in question("빨간 공이 튀고 있다")
