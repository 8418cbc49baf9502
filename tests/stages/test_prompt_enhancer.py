"""a tiny language model that learnt a few answers by heart -> prompts enhanced, and prompts that stay as they are"""

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from aiprod_components.calls import ENHANCED_BYTES, ENHANCED_TOKENS, INSTRUCTION_BYTES, EncodePrompt, EnhancePrompt
from aiprod_components.errors import CancelledError, CheckpointError, InvalidRequestError
from aiprod_components.families import make_family
from aiprod_components.families.base import Family
from aiprod_components.local import LocalStages, Silent, run_plan
from aiprod_components.models.language_model import load_language_model
from aiprod_components.models.prompt_style import as_plain_text, make_instruction
from aiprod_components.plan import PlanBuilder, Ref
from aiprod_components.stages import AIPROD_STAGES, ALWAYS, stages_of
from aiprod_components.stages.prompt_enhancer import PromptEnhancing
from aiprod_components.values import PromptEmbeds

torch.set_num_threads(1)
CPU = torch.device("cpu")
MAX_BYTES = make_family("miniature").limits.max_prompt_bytes
END = "<end>"
TEMPLATE = "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
GOOD = "Style: cinematic, a red ball is bouncing on the grass while birds are singing."
GOOD_JAPANESE = "スタイル: 映画風, 赤いボールが草の上で跳ねている。"
CONTINUED = "Style: cinematic, the same red ball is rolling to the left and the birds are going silent."
AGAIN = "and it is moving again "
FIRST = "a red ball bounces"
# Prompt -> what the model learns to answer, and why that stays without effect.
LEARNT = {
    FIRST: f"Here it is:\n**{GOOD}**",
    "赤いボールが跳ねる": "スタイル：映画風、赤いボールが草の上で跳ねている。",
    "a blue star spins": "Style: кино, синяя звезда вращается на траве, и птицы поют.",
    "a white ring grows": "",
    "a green square is on the left": "I cannot help with that.",
    "a pink cross moves": "Style: cinematic, the pink cross is moving, " + AGAIN * 30,
    "a small orange ball": "Style: documentaire, une petite boule orange est dans la rue avec un chien.",
}
FAULTS = {
    "a blue star spins": "it is not in English, the prompt's language",
    "a white ring grows": "it has no line of the form Style: <style>, <rest>",
    "a green square is on the left": "it has no line of the form",
    "a pink cross moves": "bytes, and a prompt at most 500",
    "a small orange ball": "it is not in English, the prompt's language",
}


@dataclass
class Watch:
    """Progress that remembers, and stops the work at step `last`."""

    last: int | None = None
    seen: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def advance(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        if done == self.last:
            raise CancelledError("not wanted any more")


def make_tokenizer(*, chats: bool) -> Any:
    """Bytes, merged across words where the texts of this test repeat themselves, so that questions are short."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[END], show_progress=False
    )
    tokenizer.train_from_iterator([*[question("")] * 3, *[question("", before=("",))] * 3, AGAIN * 9], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    if chats:
        fast.chat_template = TEMPLATE
    return fast


def question(prompt: str, *, before: tuple[str, ...] = ()) -> str:
    return make_instruction(prompt, before=before, max_bytes=MAX_BYTES)


def learn(texts: list[tuple[str, str]], tokenizer: Any) -> LlamaForCausalLM:
    """A two-layer Llama that has learnt (question, answer) pairs by heart."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    pairs = [[tokenizer.encode(text) for text in (asked, answer + END)] for asked, answer in texts]
    width = max(len(asked) + len(answer) for asked, answer in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (asked, answer) in enumerate(pairs):
        stop = len(asked) + len(answer)
        ids[row, :stop] = torch.tensor(asked + answer)
        labels[row, len(asked) : stop] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(400):
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if loss < 0.005:
            break
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, whose own settings ask for wild sampling."""
    tokenizer = make_tokenizer(chats=True)
    texts = [(question(prompt), answer) for prompt, answer in LEARNT.items()]
    texts.append((question("it rolls to the left", before=(GOOD,)), CONTINUED))
    model = learn([(f"<user>{asked}<answer>", answer) for asked, answer in texts], tokenizer)
    model.generation_config.update(do_sample=True, temperature=5.0, top_k=50)
    return save(model, tokenizer, tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def stage(folder: Path) -> PromptEnhancing:
    return PromptEnhancing(family_with(folder), device=CPU)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, another architecture, and a context hardly longer than the instruction."""
    tokenizer = make_tokenizer(chats=False)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=900, n_embd=16, n_layer=1, n_head=1))
    return save(model, tokenizer, tmp_path_factory.mktemp("untrained"))


def family_with(folder: Path) -> Family:
    return make_family("miniature", prompt_enhancer=str(folder))


def asked_of(stage: PromptEnhancing, call: EnhancePrompt, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the network gets to read when the stage answers a call."""
    seen: list[str] = []
    network, tokenizer = stage._model._network, stage._model._tokenizer
    generate = network.generate

    def spy(ids: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(tokenizer.decode(ids[0]))
        return generate(ids, **{**options, "max_new_tokens": 1})

    monkeypatch.setattr(network, "generate", spy)
    stage.run(call, Silent())
    return seen


def test_a_prompt_comes_back_as_the_model_tells_it_without_what_stands_around(stage: PromptEnhancing) -> None:
    assert stage.run(EnhancePrompt(FIRST), Silent()) == GOOD
    assert stage.run(EnhancePrompt("赤いボールが跳ねる"), Silent()) == GOOD_JAPANESE


def test_the_same_prompt_gives_the_same_answer_whatever_the_folder_s_own_sampling(stage: PromptEnhancing, folder: Path) -> None:
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is True
    assert {stage.run(EnhancePrompt(FIRST), Silent()) for _ in range(3)} == {GOOD}


def test_the_next_chunk_s_prompt_is_told_from_the_prompts_before(stage: PromptEnhancing) -> None:
    assert stage.run(EnhancePrompt("it rolls to the left", (GOOD,)), Silent()) == CONTINUED
    assert stage.run(EnhancePrompt("it rolls to the left"), Silent()) != CONTINUED


@pytest.mark.parametrize("prompt", FAULTS)
def test_an_answer_that_cannot_be_used_leaves_the_prompt_as_it_is_and_says_why(
    prompt: str, stage: PromptEnhancing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert stage.run(EnhancePrompt(prompt), Silent()) == prompt
    assert FAULTS[prompt] in caplog.text and prompt not in caplog.text


def test_random_weights_leave_every_prompt_as_it_is(untrained: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = PromptEnhancing(family_with(untrained), device=CPU)
    for prompt in (FIRST, "赤いボールが跳ねる"):
        assert stage.run(EnhancePrompt(prompt), Silent()) == prompt
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_a_question_longer_than_the_model_can_read_leaves_the_prompt_as_it_is(untrained: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = PromptEnhancing(family_with(untrained), device=CPU)
    prompt = "ж" * 2000
    assert stage.run(EnhancePrompt(prompt), Silent()) == prompt
    assert "as long as what the model can read" in caplog.text


def test_a_device_without_memory_leaves_the_prompt_as_it_is(
    stage: PromptEnhancing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(stage._model._network, "forward", fail)
    assert stage.run(EnhancePrompt(FIRST), Silent()) == FIRST
    assert "no memory left" in caplog.text


def test_the_style_guide_and_the_language_reach_the_model(stage: PromptEnhancing, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = asked_of(stage, EnhancePrompt("une boule rouge dans la rue"), monkeypatch)
    assert text.startswith("<user>") and text.endswith("<answer>")
    rules = ("present progressive", "Tell sounds in the order", "seen and what is heard", "blinding light", "Style: <style>, <rest>")
    assert all(rule in text for rule in rules)
    assert "Write in French" in text and "Prompt: une boule rouge dans la rue" in text


def test_the_prompts_before_reach_the_model_in_order_and_the_oldest_give_way(
    stage: PromptEnhancing, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = asked_of(stage, EnhancePrompt("then", ("the first one", "the second one")), monkeypatch)
    assert text.index("1. the first one") < text.index("2. the second one") < text.index("next piece: then")
    many = tuple(f"prompt number {number} " + "long " * 60 for number in range(30))
    (text,) = asked_of(stage, EnhancePrompt("then", many), monkeypatch)
    assert "prompt number 29" in text and "prompt number 0 " not in text


def test_a_model_without_a_chat_template_continues_a_text_for_one_line(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(chats=False)
    model = learn([(as_plain_text(question(FIRST)), f" {GOOD}\nPrompt: a dog\n")], tokenizer)
    stage = PromptEnhancing(family_with(save(model, tokenizer, tmp_path)), device=CPU)
    watch = Watch()
    assert stage.run(EnhancePrompt(FIRST), watch) == GOOD
    assert max(done for done, _ in watch.seen[:-1]) < len(tokenizer.encode(f" {GOOD}\nPrompt: a dog\n"))


def test_an_enhancement_that_is_cancelled_stops_within_a_token(stage: PromptEnhancing) -> None:
    watch = Watch(last=3)
    with pytest.raises(CancelledError):
        stage.run(EnhancePrompt(FIRST), watch)
    assert watch.seen == [(number, ENHANCED_TOKENS) for number in (1, 2, 3)]


def test_an_enhanced_prompt_is_what_the_text_encoder_reads(folder: Path) -> None:
    family = family_with(folder)
    steps = PlanBuilder(family="miniature", pipeline="test", grid=family.grid)
    steps.add("prompt", EncodePrompt(steps.add("enhanced", EnhancePrompt(FIRST)), None))
    stages = LocalStages(family, device=CPU)
    embeds: PromptEmbeds = run_plan(steps.build(), stages=stages)
    assert torch.equal(embeds.embeds, stages["text_encoder"].run(EncodePrompt(GOOD, None), Silent()).embeds)


def test_what_an_enhancement_costs_is_bounded_before_it_runs() -> None:
    assert all(make_family(name, weights="random").limits.max_prompt_bytes <= ENHANCED_BYTES for name in ("miniature", "aiprod"))
    longest = max(len(question("x", before=before)) for before in ((), ("x",)))
    assert len(as_plain_text("")) + longest <= INSTRUCTION_BYTES
    grid = make_family("miniature").grid
    known, unknown = (EnhancePrompt("abc", before).work(grid) for before in (("de",), (Ref[str]("enhanced"),)))
    assert (known.tokens, unknown.tokens) == (
        INSTRUCTION_BYTES + 5 + ENHANCED_TOKENS,
        INSTRUCTION_BYTES + 3 + ENHANCED_BYTES + ENHANCED_TOKENS,
    )
    assert EncodePrompt(Ref[str]("enhanced"), None).work(grid).tokens == ENHANCED_BYTES + 1


def test_without_a_language_model_an_enhancement_is_refused_with_the_way_out() -> None:
    family = make_family("miniature")
    with pytest.raises(InvalidRequestError, match="name the folder of one as prompt_enhancer") as caught:
        LocalStages(family, device=CPU)["prompt_enhancer"]
    assert caught.value.field == "enhance_prompt"


def test_a_family_has_the_stage_only_where_it_names_a_language_model(folder: Path) -> None:
    assert stages_of(make_family("miniature")) == ALWAYS and "prompt_enhancer" not in ALWAYS
    assert stages_of(family_with(folder)) == tuple(AIPROD_STAGES)


def broken(folder: Path, kind: str) -> Path:
    """A folder that was one of a language model."""
    shutil.copytree(folder, broken := folder.parent / f"broken {kind}")
    if kind == "empty":
        shutil.rmtree(broken)
        broken.mkdir()
    elif kind == "config":
        (broken / "config.json").write_text("{")
    elif kind == "weights":
        (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    elif kind == "no weights":
        (broken / "model.safetensors").unlink()
    elif kind == "tokenizer":
        for file in broken.glob("*token*"):
            file.unlink()
    elif kind == "size":
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    elif kind == "layers":
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    elif kind == "another kind":
        T5EncoderModel(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=1, vocab_size=16)).save_pretrained(broken)
    return broken


@pytest.mark.parametrize("kind", ["empty", "config", "weights", "no weights", "tokenizer", "size", "layers", "another kind"])
def test_a_folder_that_is_no_language_model_is_named_with_the_remedy(kind: str, folder: Path) -> None:
    wrong = broken(folder, kind)
    with pytest.raises(CheckpointError, match=r"name a folder written by `save_pretrained`, or leave prompt_enhancer out") as caught:
        load_language_model(wrong)
    assert str(wrong) in caught.value.message


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent is no causal language model .*there is no such folder"):
        PromptEnhancing(family_with(tmp_path / "absent"), device=CPU)


def test_a_folder_s_own_code_is_not_run_whatever_is_answered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what transformers asks on a terminal
    shutil.copytree(folder, asking := tmp_path / "asking")
    (asking / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((asking / "config.json").read_text())
    (asking / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    with pytest.raises(CheckpointError, match="is no causal language model"):
        load_language_model(asking)
    assert not (tmp_path / "ran").exists()
