"""The hybrid backbone: a noise level per token, appended tokens, positions that only matter relatively."""

from dataclasses import replace

import pytest
import torch

from aiprod_components.models.backbone import BackboneConfig, Context, HybridBackbone, Text, Tokens
from tests.models.untrained import outspoken

CONFIG = BackboneConfig(latent_channels=4, width=48, heads=4, attention_blocks=2, convolution_blocks=1, text_width=16)
GRID = (2, 3, 4)
SIZE = 24


@pytest.fixture(scope="module")
def backbone() -> HybridBackbone:
    torch.manual_seed(0)
    return outspoken(HybridBackbone(CONFIG), std=0.15)


def some_tokens(*, appended: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(1)
    count = SIZE + appended
    return Tokens(
        values=torch.randn(2, count, 4, generator=generator),
        sigmas=torch.rand(2, count, generator=generator),
        positions=torch.rand(2, count, 3, generator=generator) * torch.tensor([2.0, 64.0, 64.0]),
        grid=GRID,
    )


def some_context() -> Context:
    generator = torch.Generator().manual_seed(2)
    return Context(
        prompt_embeds=torch.randn(2, 5, 16, generator=generator),
        mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
        size=torch.tensor([[48.0, 64.0, 16.0]] * 2),
    )


def test_it_predicts_a_velocity_for_every_grid_token_and_none_for_appended_ones(backbone: HybridBackbone):
    assert backbone(some_tokens(), some_context()).shape == (2, SIZE, 4)
    assert backbone(some_tokens(appended=7), some_context()).shape == (2, SIZE, 4)


def test_appended_tokens_condition_the_grid(backbone: HybridBackbone):
    tokens = some_tokens(appended=3)
    changed = replace(tokens, values=torch.cat([tokens.values[:, :SIZE], tokens.values[:, SIZE:] + 1], dim=1))
    assert not torch.allclose(backbone(tokens, some_context()), backbone(changed, some_context()))


def test_every_token_has_a_noise_level_of_its_own(backbone: HybridBackbone):
    tokens = some_tokens()
    one_cleaner = tokens.sigmas.clone()
    one_cleaner[:, 5] = 0
    before, after = backbone(tokens, some_context()), backbone(replace(tokens, sigmas=one_cleaner), some_context())
    assert (before - after).abs().amax(dim=(0, 2)).argmax() == 5


def test_padding_of_a_prompt_is_not_read(backbone: HybridBackbone):
    context = some_context()
    embeds = context.prompt_embeds.clone()
    embeds[1, 3:] = 100.0
    torch.testing.assert_close(backbone(some_tokens(), context), backbone(some_tokens(), replace(context, prompt_embeds=embeds)))


def test_attention_depends_on_where_tokens_are_to_each_other_not_on_where_they_are(backbone: HybridBackbone):
    tokens = some_tokens()
    moved = replace(tokens, positions=tokens.positions + torch.tensor([0.37, 11.5, -3.25]))
    torch.testing.assert_close(backbone(tokens, some_context()), backbone(moved, some_context()), rtol=1e-3, atol=1e-4)
    stretched = replace(tokens, positions=tokens.positions * 1.5)
    assert not torch.allclose(backbone(tokens, some_context()), backbone(stretched, some_context()), atol=1e-3)


def test_the_skip_around_a_block_is_weighted(backbone: HybridBackbone):
    block = HybridBackbone(CONFIG).attention_blocks[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 48)
    turn = backbone.rotary(torch.rand(1, 4, 3))
    out = block(x, torch.zeros(1, 4, 6, 48), turn, Text(torch.zeros(1, 2, 48), torch.ones(1, 2, dtype=torch.bool)), None)
    torch.testing.assert_close(out, 0.9 * x)


def test_an_untrained_backbone_predicts_zero():
    torch.testing.assert_close(HybridBackbone(CONFIG)(some_tokens(), some_context()), torch.zeros(2, SIZE, 4))
