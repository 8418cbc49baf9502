"""prompts -> byte tokens with the video terms that they say -> embeds"""

import torch

from aiprod_components.families import make_family
from aiprod_components.models.text_encoder import ByteTokenizer, Tokens
from aiprod_components.models.video_vocabulary import match_terms

torch.set_num_threads(1)
ENCODER = make_family("miniature").load("text_encoder")


def tokens_of(*prompts: str, max_tokens: int = 512) -> Tokens:
    return ByteTokenizer(max_tokens)(list(prompts))


def test_a_prompt_is_its_bytes_and_an_end() -> None:
    tokens = tokens_of("é", "abc")
    assert tokens.ids.tolist() == [[0xC3 + 3, 0xA9 + 3, 1, 0], [100, 101, 102, 1]]
    assert tokens.mask.tolist() == [[True, True, True, False], [True, True, True, True]]


def test_a_video_term_is_marked_at_its_own_bytes() -> None:
    prompt = "é slow motion, é"
    (match,) = match_terms(prompt)
    (terms,) = tokens_of(prompt).terms.tolist()
    said = [position for position, term in enumerate(terms) if term]
    assert prompt.encode()[said[0] : said[-1] + 1] == b"slow motion"
    assert {terms[position] for position in said} == {match.term + 1} and len(said) == len(b"slow motion")


def test_a_long_prompt_is_cut_and_still_ends() -> None:
    tokens = tokens_of("x" * 100, max_tokens=10)
    assert tokens.ids.tolist() == [[ord("x") + 3] * 9 + [1]] and tokens.terms.shape == (1, 10)


def test_a_matched_term_changes_the_embeds() -> None:
    tokens = tokens_of("a red ball in slow motion")
    said = tokens.terms > 0
    assert said.any()
    with torch.no_grad():
        with_terms, without = ENCODER(tokens), ENCODER(tokens._replace(terms=torch.zeros_like(tokens.terms)))
    assert (with_terms - without)[said].abs().mean() > 1e-3


def test_padding_changes_nothing() -> None:
    with torch.no_grad():
        alone = ENCODER(tokens_of("a red ball"))
        beside = ENCODER(tokens_of("a red ball", "a very much longer prompt about a blue square"))
    torch.testing.assert_close(beside[:1, : alone.shape[1]], alone, rtol=1e-3, atol=1e-3)
    assert alone.shape == (1, 11, 256)


def test_what_a_prompt_says_is_in_its_embeds() -> None:
    with torch.no_grad():
        red, blue = ENCODER(tokens_of("a red ball spins", "a tan ball spins"))
    assert (red - blue).abs().mean() > 0.05
