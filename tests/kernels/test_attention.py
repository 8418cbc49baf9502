"""Every way to attend gives the attention of the definition."""

import pytest
import torch

from aiprod_components.kernels import attention as kernel


def by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = torch.einsum("bqnd,bknd->bnqk", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return torch.einsum("bnqk,bknd->bqnd", scores.softmax(dim=-1), v)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("longest_short", [0, 1024])
def test_attention_is_that_of_the_definition(masked: bool, longest_short: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "SHORT", longest_short)
    q, k, v = torch.randn(2, 7, 3, 8), torch.randn(2, 5, 3, 8), torch.randn(2, 5, 3, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]]) if masked else None
    torch.testing.assert_close(kernel.attention(q, k, v, mask=mask), by_definition(q, k, v, mask), rtol=1e-5, atol=1e-5)
