"""prompt, prompts before -> an instruction with the style guide -> (a language model) -> its answer -> a prompt, or why it is none

The guide and the wording are data: `prompt_style.toml`.
"""

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from aiprod_components.models.languages import find_language, find_script

_FILE = "prompt_style.toml"
_MARKUP = "*_`\"'“”„«»「」『』 \t"  # what models put around an answer
SAFETY = 0.9  # of the bytes that a prompt may have: a model does not count its letters


def make_instruction(prompt: str, *, before: Sequence[str], max_bytes: int) -> str:
    """What a language model is asked: to rewrite `prompt` by the style guide; after prompts `before`, so that it carries on from them."""
    style, language = _style(), find_language(prompt)
    line = _one_line(prompt)
    characters = min(style["characters"], int(SAFETY * max_bytes * len(line) / max(len(line.encode()), 1)))
    wanted = style["language_unknown"] if language is None else style["language_known"].format(language=language.name)
    return (
        style["continue" if before else "enhance"]
        .strip()
        .format(
            rules="\n".join(f"- {rule.format(characters=characters)}" for rule in style["rules"]),
            language=wanted,
            before="\n".join(f"{number}. {_one_line(text)}" for number, text in enumerate(before, start=1)),
            prompt=line,
        )
    )


def as_plain_text(instruction: str) -> str:
    """The instruction as a text whose continuation is the answer."""
    return _style()["plain"].format(instruction=instruction)


def read_answer(answer: str) -> str:
    """The last line of an answer that has the guide's form, without what stands around it; empty when there is none."""
    found = [match for line in answer.splitlines() if (match := _form().fullmatch(line.strip(_MARKUP)))]
    if not found:
        return ""
    label, style, rest = (part.strip(_MARKUP) for part in found[-1].groups())
    return f"{label}: {style}, {rest}" if style and rest else ""


def fault_in(enhanced: str, *, prompt: str, max_bytes: int) -> str | None:
    """Why a language model's version of a prompt cannot stand for it; None when it can."""
    if not enhanced:
        return f"it has no line of the form {_style()['form']}"
    if (size := len(enhanced.encode())) > max_bytes:
        return f"it has {size} bytes, and a prompt at most {max_bytes}"
    said = enhanced.partition(": ")[2]
    asked, given = (find_language(text) for text in (prompt, said))
    if asked is not None and asked != given:
        return f"it is not in {asked.name}, the prompt's language"
    if (script := find_script(prompt)) is not None and find_script(said) != script:
        return f"it is not in the prompt's script, {script}"
    return None


@cache
def _style() -> dict[str, Any]:
    return tomllib.loads((files("aiprod_components.models") / _FILE).read_text(encoding="utf-8"))


@cache
def _form() -> re.Pattern[str]:
    """Label, style and rest, with the colons and commas of every script."""
    labels = "|".join(map(re.escape, _style()["labels"]))
    return re.compile(rf"({labels})[*_ ]*[:：]([^,，、]+)[,，、](.+)", re.IGNORECASE)


def _one_line(text: str) -> str:
    return " ".join(text.split())
