"""diffusers' own caches of blocks and LTX-2's block: refused, exact where nothing is left out, wrong where something is"""

from typing import Any

import pytest
import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel, LTX2VideoTransformerBlock

from aiprod_components.stages.ltx2.cache import Streams
from tests.ltx2.folders import TRANSFORMER_23, lively
from tests.ltx2.test_fitting import asked


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """LTX-2's block, for one test, with its two streams as the hooks have names for them."""
    TransformerBlockRegistry._register()
    known = TransformerBlockMetadata(0, 1, encoder_hidden_states_argument_name="audio_hidden_states")
    known._cls = LTX2VideoTransformerBlock
    monkeypatch.setattr(TransformerBlockRegistry, "_registry", {**TransformerBlockRegistry._registry, LTX2VideoTransformerBlock: known})


def tiny() -> Any:
    return lively(lambda: LTX2VideoTransformer3DModel(**TRANSFORMER_23), name="transformer", seed=0)


@pytest.mark.parametrize("config", [FirstBlockCacheConfig(0.0), MagCacheConfig(mag_ratios=[1.0] * 4, num_inference_steps=4)])
def test_diffusers_caches_refuse_the_block_that_nobody_registered(config: Any):
    with pytest.raises(ValueError, match=r"LTX2VideoTransformerBlock.* not registered"):
        tiny().enable_cache(config)


@torch.inference_mode()
def ask(network: Any, *, noise: float) -> Streams:
    question = asked(network, dtype=torch.float32)
    with network.cache_context("conditional"):
        return network(**question | {"hidden_states": noise * question["hidden_states"]})


@pytest.mark.usefixtures("registered")
def test_once_registered_diffusers_cache_is_exact_at_threshold_0_and_else_hands_on_the_text_as_sound():
    """Why the room is our own."""
    plain, exact, every = tiny(), tiny(), tiny()
    exact.enable_cache(FirstBlockCacheConfig(0.0))
    every.enable_cache(FirstBlockCacheConfig(1e9))
    for noise in (1.0, 0.9):
        assert all(torch.equal(one, other) for one, other in zip(ask(exact, noise=noise), ask(plain, noise=noise), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(ask(every, noise=1.0), ask(plain, noise=1.0), strict=True))
    with pytest.raises(RuntimeError, match=r"input of size\[1, 1024, 64\]"):  # tokens of the prompt
        ask(every, noise=0.9)
