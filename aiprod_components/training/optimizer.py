"""gradients -> updates: Muon for matrices and kernels, AdamW for the rest"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

SMALLEST_MATRIX = 8  # with fewer rows or columns there is nothing to orthogonalize


class MatrixOptimizer:
    """Muon (Jordan et al. 2024) on everything that is a matrix, convolution kernels included, AdamW on the rest.

    Muon's updates are scaled to AdamW's size (Liu et al. 2025), so both follow one learning rate. On the miniature's VAE
    it reached AdamW's loss in about half the steps.
    """

    def __init__(self, model: nn.Module, *, weight_decay: float) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        self._matrices = [p for _, p in trained if id(p) not in embeddings and _is_matrix(p)]
        chosen = {id(p) for p in self._matrices}
        self._rest = [p for _, p in trained if id(p) not in chosen]
        # Views of the same storage: what Muon writes, the model has.
        self._views = [nn.Parameter(_as_matrix(p.data)) for p in self._matrices]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(self._views, lr=1e-4, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        }
        if self._rest:  # low-rank factors are matrices, all of them
            optimizers["adamw"] = torch.optim.AdamW(self._rest, lr=1e-4, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)
        self._optimizers = optimizers

    def step(self, learning_rate: float) -> None:
        """One update from the gradients, which are then let go."""
        for view, parameter in zip(self._views, self._matrices, strict=True):
            view.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        for parameter in (*self._matrices, *self._rest, *self._views):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) > SMALLEST_MATRIX


def _as_matrix(tensor: Tensor) -> Tensor:
    """Outputs x everything else, as a view; kernels are last-channel in memory, and a column's place is of no matter."""
    if tensor.ndim == 2:
        return tensor
    if tensor.ndim == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        return rearrange(tensor, "o i t h w -> o t h w i").view(tensor.shape[0], -1)
    return tensor.contiguous().view(tensor.shape[0], -1)
